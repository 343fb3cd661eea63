import pytest

pytest.register_assert_rewrite("tests.closeness", "tests.ranks", "tests.toys")
