"""How types are checked while tests run with CHECK_SHAPES, see conftest.py."""

from beartype import BeartypeConf, beartype

#: An int will do where a float is asked for, as for a type checker.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
