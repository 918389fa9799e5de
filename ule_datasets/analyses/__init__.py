"""What trained models and their histories say beyond an accuracy: the analyses of the OPS paper.

Nothing is trained here. Every analysis takes models, arrays or histories and returns a frozen dataclass that
``dataclasses.asdict`` turns into plain JSON.
"""
