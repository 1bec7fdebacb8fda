"""What quants do with tapes: evaluate, compare, tune, features, audit, import.

None of it is imported while a shard is served. It needs the extra `evaluate`.
"""
