"""Words to a person: parse, call one library function, show its result.

Nothing here is imported by the library, and nothing heavy is imported here at the top.
"""
