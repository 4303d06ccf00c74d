-- All intents of a pull request, also those that were ignored: some of them may have happened at the same time.
CREATE INDEX all_intents ON deliveries (repo, number, seq) WHERE intent IS NOT NULL;
