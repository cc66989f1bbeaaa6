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

    def on_attribute_instance(self, *, node, attr: Attribute, **_) -> None:
        call = getattr(node, "value", None)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "option":
            attr.value, text = ast.unparse(call.args[0]), ast.literal_eval(call.args[1])
            attr.docstring = Docstring(text, parent=attr)

    def on_alias(self, *, alias: Alias, **_) -> None:
        # What a package takes from its modules is shown there, once.
        if not alias.inherited:
            alias.public = False
