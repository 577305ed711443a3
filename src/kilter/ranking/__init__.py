"""Bradley-Terry and Plackett-Luce: strengths, honest intervals and predictions, from comparisons."""
