"""Tables of text: words at the left of their columns, numbers at the right."""

from daybreak.text_table import markdown_table, plain_table


def test_plain_columns_stand_under_one_another() -> None:
    rows = [("task", "items", "note"), ("arc", "1,200", "")]
    assert plain_table(rows, left=(0, 2)) == ["task  items  note", "arc   1,200"]


def test_markdown_has_a_rule_that_says_where_columns_stand() -> None:
    assert markdown_table(("task", "n"), [("arc", "1,200")], left=(0,)) == [
        "| task |     n |",
        "| ---- | ----: |",
        "| arc  | 1,200 |",
    ]
    assert markdown_table(("a", "n"), [], left=(0,)) == ["| a   |   n |", "| --- | --: |"]
