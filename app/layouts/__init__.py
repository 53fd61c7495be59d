"""Facts about checkpoint layouts as data, stated once: the plan counts from them and the loader loads by them."""
