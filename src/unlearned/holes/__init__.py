"""Knowledge holes: questions that the original answers well, the unlearned model does not, and that nothing in the forget set would answer.

Paper: Ko, Just, Fleming, Jin, Jia, "Probing Knowledge Holes in Unlearned LLMs", NeurIPS 2025, arXiv 2511.00030. One file for each of its stages and each part
that a stage needs. What asks, judges and checks is a seam (`_seams`) with several backends: `_plain` needs no further language model, `_instruct` asks one.
"""
