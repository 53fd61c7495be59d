"""What README and docs say of the published models is what the plan answers now."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.checkpoint.checkpoint import CheckpointError, checkpoint_from_config, read_checkpoint
from tests.bench import plan_sweep
from tests.sparse import sparse_checkpoint
from tools.checkpoints.published import CardPlan, published, published_config, published_inputs, sweep
from tools.fits import table
from tools.fits.plot import plot


def test_all_six_are_planned() -> None:
    assert len(published()) == 6
    for name, entry in published().items():
        asked = published_inputs(name)
        assert asked.model.parameters == entry.get("parameters", asked.model.parameters)
        assert asked.model.parameters > 6e9


def test_a_config_alone_is_counted_as_its_files_are(tmp_path: Path) -> None:
    name = "zai-org/GLM-4-9B-0414"
    alone, files = checkpoint_from_config(published_config(name)), read_checkpoint(sparse_checkpoint(tmp_path / "x"))
    assert (alone.parameters, alone.stored_bytes) == (files.parameters, files.stored_bytes)
    assert {key: (one.dtype, one.shape) for key, one in alone.tensors.items()} == {
        key: (one.dtype, one.shape) for key, one in files.tensors.items()
    }


def test_a_config_that_lacks_a_field_is_named() -> None:
    config = published_config("zai-org/chatglm3-6b")
    assert checkpoint_from_config(config).stored_dtype == "F16"
    with pytest.raises(CheckpointError, match=r"^zai-org/x: num_layers is None"):
        checkpoint_from_config({key: value for key, value in config.items() if key != "num_layers"}, "zai-org/x")


def test_tables_plot_and_sweep_are_what_the_plan_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "rows"),
    [(table.README, table.readme_table()), (table.PAGE, table.page_table())],
    ids=["README", "page"],
)
def test_a_stale_table_is_seen(path: Path, rows: str) -> None:
    document = path.read_text(encoding="utf-8")
    stale = document.replace(rows, "| memory |\n")
    assert stale != document
    assert table.with_table(stale, rows) == document


def test_more_memory_never_gives_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_sweep.main() == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == table.SWEEP.read_text(encoding="utf-8")


def test_a_sweep_that_falls_back_is_seen() -> None:
    planned = sweep("zai-org/chatglm3-6b", range(12, 16))
    assert plan_sweep.breaches(planned) == []
    last = planned[-1]
    for worse in (
        CardPlan(last.gib, None),
        replace(last, precision="int8"),
        replace(last, max_model_len=last.max_model_len - 1),
        replace(last, max_num_seqs=0),
    ):
        (line,) = plan_sweep.breaches([*planned[:-1], worse])
        assert line.startswith("15 GiB gives ")


def test_the_plot_reads_without_colours() -> None:
    drawn = plot()
    for name in published():
        assert f">{name.rpartition('/')[2]}</text>" in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert len(re.findall(r"<rect [^>]*><title>", drawn)) == drawn.count("<rect ")


@pytest.mark.parametrize(
    ("count", "text"), [(2048, "2K"), (4352, "4.2K"), (9728, "9.5K"), (15104, "14K"), (202752, "198K")]
)
def test_lengths_for_a_table(count: int, text: str) -> None:
    assert table.tokens(count) == text
