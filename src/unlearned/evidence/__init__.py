"""What audits and attacks work with: the subject under test, statistics, comparison with the references, and the verdict."""
