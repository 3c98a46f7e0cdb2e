"""Pictures of a study that stand by themselves."""

from pathlib import Path
from xml.etree import ElementTree

from daybreak.data.shards import Corpus
from daybreak.report.standalone import differences_svg
from daybreak.report.words import signed
from daybreak.study.conduct import conduct
from made_study import write_study


def test_a_picture_for_each_reference_holds_every_difference_and_its_own_colours(
    corpus: Corpus, tmp_path: Path
) -> None:
    file = write_study(tmp_path / "study.toml", modes="{ leave-one-out = true }", budget='"128 tokens"')
    study = conduct(file, tmp_path / "out", data=corpus.path)
    pictures = differences_svg(study)
    assert list(pictures) == ["base", "all"]
    for reference, picture in pictures.items():
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        said = " ".join("".join(root.itertext()).split())
        expected = [each for each in study.comparisons if each.reference == reference]
        assert expected
        for each in expected:
            assert each.variant in said
            assert signed(each.difference.mean, 4) in said
        used = {part.split(")")[0] for part in picture.decode().split("var(")[1:]}
        assert used
        assert all(f"{name}:" in said for name in used)
