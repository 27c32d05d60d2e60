"""The speed of the data plane: Bridgehead's store and its transport against memory, plain sockets, Ray and DragonHPC.

Owns the rows, how each is measured, and the curve; turns, ratios and tables are `versus`'s.
"""
