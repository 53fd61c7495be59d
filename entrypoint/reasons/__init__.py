"""Why something is as it is, as data: a reason holds numbers and names, never a sentence."""
