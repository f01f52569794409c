"""The detokenization rules of the papers, on sentences in the style of each corpus."""

import pytest

from diffusion.data import detokenizers


@pytest.mark.parametrize(
    ("rule", "raw", "expected"),
    [
        ("wikitext", " = Robert Boulter = \n", " = Robert Boulter =\n"),
        ("wikitext", " = = Career = = \n", " == Career ==\n"),
        ("wikitext", "a well @-@ known 1 @,@ 200 and 3 @.@ 5", "a well-known 1,200 and 3.5"),
        ("wikitext", 'He said , " yes " ; then ( in 2000 ) left .', 'He said, "yes"; then (in 2000) left .'),
        ("wikitext", "the dogs ' house . Next", "the dogs' house. Next"),
        ("wikitext", "Bob 's cat : here", "Bob's cat: here"),
        ("wikitext", "20 ° C and N dots", "20°C and 1 dots"),
        ("ptb", "the company 's <unk> did n't rise N N N %", "the company's ? didn't rise 1 1 1 %"),
        ("ptb", "about $ N million and # N", "about $1 million and # N"),
        ("ptb", "a 1\\/2 share in the traders ' pit", "a 1/2 share in the traders' pit"),
        ("lm1b", "She said : ' no ' , and it is $ 5 .", "She said: 'no', and it is $5."),
        ("lm1b", "What ? Yes ! See http : / / a / b ?", "What? Yes! See http://a/b?"),
        ("lm1b", 'He \'s " very old " ( really ) .', 'He\'s "very old" (really) .'),
        ("lambada", " “ Go , ” she said . ", '\n" Go , " she said .'),
        ("scientific_papers_arxiv", "we show ( in sec . 2 ) that x , y hold .", "we show (in sec. 2) that x, y hold."),
    ],
)
def test_rules(rule, raw, expected):
    assert detokenizers.DETOKENIZERS[rule](raw) == expected
