"""Static analysis of whether the names of a Python program are bound before they are used."""

import ast
import builtins
import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

# With the names of a module; "_" is bound in interactive sessions alone.
BUILTINS = (frozenset(dir(builtins)) | {"__file__", "__path__", "__annotations__", "__builtins__"}) - {"_"}
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Names(NamedTuple):
    """Number of uses of names in a program, and the names of unbound uses in the order of evaluation."""

    used: int
    undefined: list[str]


@dataclasses.dataclass(eq=False)
class Scope:
    """Names of a module, class, function or comprehension that are bound so far."""

    kind: str  # module | class | function | comprehension | cell (encloses methods or type parameters)
    bound: set[str]
    local: frozenset[str] = frozenset()  # names that a function binds anywhere, which hide those outside
    elsewhere: dict[str, "Scope"] = dataclasses.field(default_factory=dict)  # names declared global or nonlocal


def names(program: ast.AST) -> Names:
    """Counts the uses of names in a parsed program, and collects those that are not bound.

    A use is a name that is read, including `x` in `x += 1` and excluding attributes. It is bound when it is a builtin,
    or when an import, assignment, parameter, loop, with, except, comprehension, match, def, class or global declaration
    of a visible scope has bound it earlier in Python's order of evaluation. Functions, lambdas and annotations run
    later, and are read when the scope around them is complete. All branches are taken, and neither del nor the end of
    an except clause unbinds a name. Names that only an earlier `import *` may have bound do not count.
    Raises: RecursionError for a program whose nesting exceeds Python's stack.
    """
    reader = _Reader()
    reader.visit(program)
    while reader.later:
        reader.scopes, read = reader.later.popleft()
        read()
    return Names(reader.used, reader.undefined)


class _Reader(ast.NodeVisitor):
    def __init__(self) -> None:
        self.module = Scope("module", set())
        self.scopes: tuple[Scope, ...] = (self.module,)
        self.later: collections.deque[tuple[tuple[Scope, ...], Callable[[], None]]] = collections.deque()
        self.used, self.undefined, self.star = 0, [], False

    def use(self, name: str) -> None:
        bound = self.is_bound(name)
        if bound or not self.star:
            self.used += 1
            self.undefined += [] if bound else [name]

    def is_bound(self, name: str) -> bool:
        in_class = True  # names of a class are visible in its body, but not in functions and comprehensions inside
        for scope in reversed(self.scopes):
            if scope.kind != "class" or in_class:
                if owner := scope.elsewhere.get(name):
                    return name in owner.bound or name in BUILTINS
                if name in scope.bound:
                    return True
                if name in scope.local:
                    return False
            in_class = in_class and scope.kind not in ("function", "comprehension")
        return name in BUILTINS

    def bind(self, name: str) -> None:
        self.scopes[-1].elsewhere.get(name, self.scopes[-1]).bound.add(name)

    def read(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def read_later(self, nodes: Iterable[ast.AST | None]) -> None:
        self.later.append((self.scopes, lambda: self.read(nodes)))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.use(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self.star |= alias.name == "*"
            self.bind(_imported(alias))

    visit_ImportFrom = visit_Import

    def visit_Assign(self, node: ast.Assign) -> None:
        self.read([node.value, *node.targets])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.use(node.target.id)
        self.read([node.value, node.target])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.read([node.value])
        if node.value or not isinstance(node.target, ast.Name):  # an annotation alone binds nothing
            self.visit(node.target)
        self.read_later([node.annotation])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        scopes = self.scopes
        self.scopes = tuple(scope for scope in scopes if scope.kind != "comprehension")
        self.bind(node.target.id)
        self.scopes = scopes

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.read([node.iter, node.target, *node.body, *node.orelse])

    visit_AsyncFor = visit_For

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.read([node.type])
        if node.name:
            self.bind(node.name)
        self.read(node.body)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        self.generic_visit(node)
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.bind(name)

    visit_MatchStar = visit_MatchMapping = visit_MatchAs

    def visit_Dict(self, node: ast.Dict) -> None:
        self.read(part for pair in zip(node.keys, node.values, strict=True) for part in pair)

    def visit_comprehension_scope(self, node: Comprehension) -> None:
        outside = self.scopes
        self.visit(node.generators[0].iter)
        targets = [part for generator in node.generators for part in _stored([generator.target])]
        self.scopes = (*outside, Scope("comprehension", set(), frozenset(targets)))
        for number, generator in enumerate(node.generators):
            self.read([generator.iter] * (number > 0) + [generator.target, *generator.ifs])
        self.read([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self.scopes = outside

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_scope

    def visit_Global(self, node: ast.Global) -> None:
        self.scopes[-1].elsewhere |= dict.fromkeys(node.names, self.module)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.function(node, [node.body])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.read(node.decorator_list)
        self.function(node, node.body)
        self.bind(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def function(self, node: Function, body: Sequence[ast.AST]) -> None:
        every = [*node.args.posonlyargs, *node.args.args, node.args.vararg, *node.args.kwonlyargs, node.args.kwarg]
        parameters = [argument for argument in every if argument]
        self.read([*node.args.defaults, *node.args.kw_defaults])
        outside = self.scopes
        self.type_parameters(node)
        self.read_later([*(argument.annotation for argument in parameters), getattr(node, "returns", None)])
        arguments, stored = {argument.arg for argument in parameters}, set(_stored(body))
        declared = {
            name: owner
            for kind, name in _declarations(body)
            if (owner := self.module if kind is ast.Global else self.owner(name))
        }
        for name in stored & set(declared):
            declared[name].bound.add(name)
        # Global names of nested functions as well: they may run before the next line of the module.
        for nested in ast.walk(node):
            if isinstance(nested, ast.FunctionDef | ast.AsyncFunctionDef) and nested is not node:
                shared = {name for kind, name in _declarations(nested.body) if kind is ast.Global}
                self.module.bound |= shared & set(_stored(nested.body)) if shared else set()
        scope = Scope("function", arguments, frozenset((arguments | stored) - set(declared)), declared)
        self.scopes = (*self.scopes, scope)
        self.read_later(body)
        self.scopes = outside

    def owner(self, name: str) -> Scope | None:
        functions = (scope for scope in reversed(self.scopes) if scope.kind == "function")
        return next((scope for scope in functions if name in scope.local), None)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside = self.scopes
        self.read(node.decorator_list)
        self.type_parameters(node)
        self.read([*node.bases, *node.keywords])
        self.scopes += (Scope("cell", {"__class__"}), Scope("class", {"__module__", "__qualname__"}))
        self.read(node.body)
        self.scopes = outside
        self.bind(node.name)

    def visit_TypeAlias(self, node: Any) -> None:  # Python 3.12: type X[T] = ...
        outside = self.scopes
        self.visit(node.name)
        self.type_parameters(node)
        self.read_later([node.value])
        self.scopes = outside

    def type_parameters(self, node: ast.AST) -> None:
        """Enters the scope of [T] in def, class and type of Python 3.12, whose bounds are evaluated lazily."""
        if parameters := getattr(node, "type_params", None):
            self.scopes += (Scope("cell", {parameter.name for parameter in parameters}),)
            self.read_later(child for parameter in parameters for child in ast.iter_child_nodes(parameter))


def _imported(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _children(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yields the nodes of a function's scope, without those inside its functions, classes and lambdas."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _declarations(body: Iterable[ast.AST]) -> Iterator[tuple[type[ast.AST], str]]:
    """Yields the names that a function declares global or nonlocal."""
    for node in _children(body):
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((type(node), name) for name in node.names)


def _stored(body: Iterable[ast.AST]) -> Iterator[str]:
    """Yields the names that the statements of a function bind or delete: its locals without parameters."""
    body = list(body)
    inner = set()  # targets of comprehensions, which have their own scope
    for node in _children(body):
        if isinstance(node, Comprehension):
            inner |= {id(part) for generator in node.generators for part in ast.walk(generator.target)}
    for node in _children(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and id(node) not in inner:
            yield node.id
        elif isinstance(node, ast.alias):
            yield _imported(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest
