"""Lets the site show three things of the code that plain Markdown would not."""

import ast
import re

from griffe import Alias, Attribute, Docstring, Extension, Object

LINK = re.compile(r":(?:class|func|meth|mod):`\.?([\w.]+)`")
NAME = re.compile(r":(?:attr|data):`([\w.]+)`")


class Docstrings(Extension):
    """Makes links of roles and docstrings of the options of losses, and shows re-exported names once."""

    def on_object(self, *, obj: Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = NAME.sub(r"`\1`", LINK.sub(r"[`\1`][]", obj.docstring.value))

    def on_attribute(self, *, attr: Attribute, **_) -> None:
        call = ast.parse(str(attr.value or None), mode="eval").body
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "option":
            text = call.args[1]
            # One that several losses share has a name, and may be imported.
            told = str(attr.module[text.id].value) if isinstance(text, ast.Name) else text
            attr.value = ast.unparse(call.args[0])
            attr.docstring = Docstring(ast.literal_eval(told), parent=attr)

    def on_alias(self, *, alias: Alias, **_) -> None:
        # What a package takes from its modules is shown there, once.
        if not alias.inherited:
            alias.public = False
