"""Whether a candidate may take the champion's place: the judge, what a release can show, and their simulation."""
