"""The experiments behind the chapters: one file per chapter, its results beside it as JSON."""
