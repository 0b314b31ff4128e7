"""Teaches papermill to write parameters in Go: `import papermill_go` before papermill runs a notebook of the kernel "espalier".

The cell tagged "parameters" declares variables with their defaults; papermill puts a cell after it that declares them again. A whole number is an int and
one with a point a float64: where the notebook's variable is a float64 pass 1.0, not 1.
"""
import json
import math

from papermill.translators import Translator, papermill_translators


class GoTranslator(Translator):
    @classmethod
    def translate_none(cls, val):
        return "any(nil)"

    @classmethod
    def translate_bool(cls, val):
        return "true" if val else "false"

    @classmethod
    def translate_escaped_str(cls, str_val):
        return json.dumps(str(str_val), ensure_ascii=False)  # its escapes are Go's too

    @classmethod
    def translate_float(cls, val):
        if math.isnan(val):
            return "math.NaN()"
        if math.isinf(val):
            return f"math.Inf({1 if val > 0 else -1})"
        text = repr(val)
        return text if any(c in text for c in ".e") else text + ".0"

    @classmethod
    def element_type(cls, values):
        """The Go type that all values have, "any" if they have several."""
        types = {type(v) for v in values}
        if len(types) != 1:
            return "any"
        return {bool: "bool", int: "int", float: "float64", str: "string"}.get(types.pop(), "any")

    @classmethod
    def translate_list(cls, val):
        return "[]%s{%s}" % (cls.element_type(val), ", ".join(cls.translate(v) for v in val))

    @classmethod
    def translate_dict(cls, val):
        pairs = ", ".join(f"{cls.translate_str(k)}: {cls.translate(v)}" for k, v in val.items())
        return "map[string]%s{%s}" % (cls.element_type(val.values()), pairs)

    @classmethod
    def comment(cls, cmt_str):
        return f"// {cmt_str}".strip()

    @classmethod
    def assign(cls, name, str_val):
        return f"var {name} = {str_val}"


papermill_translators.register("go", GoTranslator)
