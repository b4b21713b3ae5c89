"""Call-detail records and what is reckoned from them: ratios, percentiles, peaks, costs."""
