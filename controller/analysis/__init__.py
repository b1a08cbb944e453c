"""What is wrong with a set of files, before they serve: `ambit analyze` asks here, and so may whoever has a snapshot.

`report` puts together what the door refuses (`controller.sources`, the same code that serves) and what the checks of
`selection`, `enforcement`, `ports` and `principals` find across objects that are valid one by one. The checks are pure
functions of what was `given`; they speak only of what they can know: where pods were refused, or are made by kinds that
are not read, nothing is said about what selects them. `codes` is the list of all codes. Read `report` first.
"""
