"""The page's conversations: requests, turns, import and export."""
