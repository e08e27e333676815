"""The studies, one file each; `analysis.study.discover` finds them. Files with a leading underscore are their parts."""
