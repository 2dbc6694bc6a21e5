"""Made-up releases, on which the judge is compared with the rules of others."""
