"""From what is wanted and what there is to what must change, and when to look again.

`diff` and `problem` are pure; the loop has its clock handed in.
"""
