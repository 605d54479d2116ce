"""``slicesim capture`` on tiny models of each family, against what the models themselves say."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from slicesim.live.greedy import steps  # noqa: E402
from slicesim.live.load import load_live  # noqa: E402
from slicesim.trace.store import ParquetTrace  # noqa: E402
from slicesim.trace.table import DECODE, PREFILL, TraceBlock, TraceHeader, first_fault  # noqa: E402
from slicesim.version import __version__  # noqa: E402
from tests.cli.conftest import Slicesim  # noqa: E402
from tests.live import tiny  # noqa: E402

PROMPTS = ["w1 w2 w3 w4 w5", "w60 w7", "w11 w12 w13 w14 w15 w16 w17 w18 w19 w20 w21 w22"]
NEW = 9


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def read(path: Path) -> tuple[TraceHeader, TraceBlock]:
    trace = ParquetTrace(path)
    columns = zip(*trace.blocks(), strict=True)
    return trace.header, TraceBlock(*(np.concatenate(column) for column in columns))


def generated(model, ids: list[int]) -> tuple[list[int], dict[str, list]]:
    """The model's own greedy text (one token more: that runs NEW decode passes), and what each router returned."""
    heard: dict[str, list] = {}
    hooks = []
    for name, module in model.named_modules():
        if name.endswith((".mlp.gate", ".mlp.router")):
            keep = lambda _, __, out, name=name: heard.setdefault(name, []).append(out)  # noqa: E731
            hooks.append(module.register_forward_hook(keep))
    inputs = torch.tensor([ids])
    text = model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=NEW + 1)
    for hook in hooks:
        hook.remove()
    return text[0, len(ids) :].tolist(), heard


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_a_capture_is_what_the_models_routers_say(
    family: str, model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim
) -> None:
    folder, out = model_folder(family), tmp_path / "t.parquet"
    code, told, err = slicesim(
        "capture", folder, "--prompts", prompts, "-o", out, "--max-new-tokens", NEW, "--threads", 1
    )
    assert code == 0, err
    header, block = read(out)
    assert first_fault(header, block) is None
    assert slicesim("trace", "validate", out).code == 0

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()
    layers = [n for n, layer in enumerate(model.model.layers) if not type(layer.mlp).__name__.endswith("MLP")]
    layers = list(range(3)) if family == "gpt-oss" else layers  # whose MLP is the MoE block
    assert header.layers == layers
    assert header.score_kind == ("renormalised" if family == "gpt-oss" else "softmax")
    for request, prompt in enumerate(PROMPTS):
        ids = [tiny.WORDS.index(word) for word in prompt.split()]
        text, heard = generated(model, ids)
        fed = [token for token in text[:NEW] if token != 2]
        own = block.request == request
        assert block.token[own].tolist() == list(range(len(ids) + len(fed)))
        assert block.phase[own].tolist() == [PREFILL] * len(ids) + [DECODE] * len(fed)
        assert len(heard) == len(layers)
        for slot, calls in enumerate(heard.values()):
            logits = torch.cat([call[0] for call in calls])[: own.sum()].numpy()
            chosen = torch.cat([call[2] for call in calls])[: own.sum()].numpy()
            np.testing.assert_array_equal(block.logits[own, slot], logits)
            np.testing.assert_array_equal(np.sort(block.ids[own, slot]), np.sort(chosen))
            picked = np.take_along_axis(logits, block.ids[own, slot], axis=1)
            scores = np.take_along_axis(softmax(logits), block.ids[own, slot], axis=1)
            expected = softmax(picked) if family == "gpt-oss" else scores
            np.testing.assert_allclose(block.scores[own, slot], expected, rtol=1e-5)
            assert (np.diff(block.scores[own, slot]) <= 0).all()
    assert f"3 requests, {len(block)} tokens, {len(layers)} layers" in told


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_decoding_is_the_models_own_greedy_text(family: str, model_folder) -> None:
    live = load_live(str(model_folder(family)))
    for prompt in PROMPTS:
        ids = [tiny.WORDS.index(word) for word in prompt.split()]
        text, _ = generated(live.model, ids)
        taken = list(steps(live, ids, NEW, 512))
        assert [step.phase for step in taken] == [PREFILL] + [DECODE] * (len(taken) - 1)
        assert [token for step in taken[1:] for token in step.tokens] == [t for t in text[:NEW] if t != 2]


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_prompt_in_chunks_routes_as_in_one_piece(family: str, chunk: int, model_folder) -> None:
    """gpt-oss has a window of 8 tokens here; against the router logits of one pass without a cache."""
    live = load_live(str(model_folder(family)))
    ids = [3 + 7 * number % 90 for number in range(23)]
    taken = list(steps(live, ids, 0, chunk))
    assert [len(step.tokens) for step in taken] == [chunk] * (23 // chunk) + [23 % chunk] * (23 % chunk > 0)
    with torch.inference_mode():
        whole = live.model.model(torch.tensor([ids]), output_router_logits=True).router_logits
    logits = np.concatenate([step.logits for step in taken])
    np.testing.assert_allclose(logits, np.stack([layer.numpy() for layer in whole], axis=1), rtol=1e-3, atol=1e-3)


def test_the_text_may_end_early(model_folder, tmp_path: Path) -> None:
    """The third token of the greedy text is declared an end: two decode steps are left."""
    folder = Path(shutil.copytree(model_folder("olmoe"), tmp_path / "m"))
    ids = [4, 5, 6]
    text, _ = generated(load_live(str(folder)).model, ids)
    assert text[2] not in text[:2]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [96, text[2]]}))
    taken = list(steps(load_live(str(folder)), ids, NEW, 512))
    assert [step.tokens for step in taken[1:]] == [(text[0],), (text[1],)]


def test_the_header_says_where_the_trace_comes_from(
    model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim
) -> None:
    folder = Path(shutil.copytree(model_folder("mixtral"), tmp_path / "own-mixtral"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# A model\n")
    asked = ("--prompts", prompts, "-o", tmp_path / "t.parquet", "--max-new-tokens", 2, "--dtype", "bfloat16")
    assert slicesim("capture", folder, *asked).code == 0
    header, _ = read(tmp_path / "t.parquet")
    digest = hashlib.sha256(prompts.read_bytes()).hexdigest()
    assert header.model == "own-mixtral"
    assert header.source == f"captured from own-mixtral (MixtralForCausalLM), prompts prompts.txt (SHA-256 {digest})"
    assert header.licence == "apache-2.0 (the model's)"
    assert (header.synthetic, header.micro_model, header.has_logits) == (False, False, True)
    assert header.tool_version == __version__
    assert header.notes == (
        "slicesim capture own-mixtral --prompts prompts.txt --max-new-tokens 2 --prefill-chunk 512 --dtype bfloat16; "
        f"greedy, weights as bfloat16, transformers {transformers.__version__}, torch {torch.__version__}"
    )
    assert str(tmp_path) not in header.model_dump_json()
    assert slicesim("capture", folder, *asked, "--licence", "mine").code == 0
    assert read(tmp_path / "t.parquet")[0].licence == "mine"


def test_a_micro_model_is_called_so(model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim) -> None:
    folder = Path(shutil.copytree(model_folder("qwen2-moe"), tmp_path / "m"))
    tiny.add_config(folder, slicesim_micro_model=True, slicesim_model="qwen1.5-moe-a2.7b")
    out = tmp_path / "t.parquet"
    told = slicesim("capture", folder, "--prompts", prompts, "-o", out, "--max-new-tokens", 2)
    assert "(MICRO MODEL trace, 3 requests" in told.out
    header, _ = read(out)
    assert header.micro_model
    assert header.model == "qwen1.5-moe-a2.7b"
    assert "MICRO MODEL trace t.parquet" in slicesim("trace", "info", out).out


def test_chats_go_through_the_tokenizers_template(model_folder, tmp_path: Path, slicesim: Slicesim) -> None:
    folder = Path(shutil.copytree(model_folder("olmoe"), tmp_path / "m"))
    template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}w9{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    chat = tmp_path / "chat.jsonl"
    chat.write_text(json.dumps({"messages": [{"role": "w3", "content": "w4 w5"}]}))
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"prompt": "w3 w4 w5 w9"}))
    blocks = []
    for path in (chat, plain):
        out = tmp_path / f"{path.stem}.parquet"
        assert slicesim("capture", folder, "--prompts", path, "-o", out, "--max-new-tokens", 1).code == 0
        blocks.append(read(out)[1])
    np.testing.assert_array_equal(blocks[0].logits, blocks[1].logits)
    chat.write_text(json.dumps({"messages": [{"role": "user", "content": "w4"}]}))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no user here') }}")
    told = slicesim("capture", folder, "--prompts", chat, "-o", tmp_path / "t.parquet")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "chat.jsonl: line 1: refused by the model's chat template (no user here)" in told.err


def test_long_prompts(model_folder, tmp_path: Path, slicesim: Slicesim) -> None:
    path, out = tmp_path / "p.txt", tmp_path / "t.parquet"
    path.write_text("w1\n" + "w2 " * tiny.CONTEXT)
    asked = ("capture", model_folder("olmoe"), "--prompts", path, "-o", out, "--max-new-tokens", 3)
    told = slicesim(*asked)
    assert told.code == 2
    assert told.err == (
        f"slicesim: {path}: line 2: 128 prompt tokens and 3 new ones are more than the model's context of 128: "
        "lower --max-prompt-tokens or --max-new-tokens\n"
    )
    assert not list(tmp_path.glob("t.parquet*"))
    assert slicesim(*asked, "--max-prompt-tokens", 125).code == 0
    assert np.bincount(read(out)[1].request).max() == 128


def test_mistakes_are_one_line(model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim) -> None:
    folder, out = model_folder("olmoe"), tmp_path / "t.parquet"
    (tmp_path / "empty.txt").touch()
    for words, message in (
        ((folder, "--prompts", tmp_path / "none.txt", "-o", out), "none.txt: no such prompt file"),
        ((folder, "--prompts", tmp_path / "empty.txt", "-o", out), "empty.txt: holds no prompt"),
        ((tmp_path / "none", "--prompts", prompts, "-o", out), "none: no such model folder"),
        ((folder, "--prompts", prompts, "-o", tmp_path), "is a folder; give the name of a file with --out"),
        ((folder, "--prompts", prompts, "-o", prompts), "prompts.txt: is the file to read from; choose another --out"),
        ((folder, "--prompts", prompts, "-o", out, "--dtype", "int4"), "--dtype: 'int4' is none of auto"),
    ):
        told = slicesim("capture", *words)
        assert (told.code, told.err.count("\n")) == (2, 1), told.err
        assert message in told.err
    assert prompts.read_text() == "\n".join(PROMPTS)
    assert not list(tmp_path.glob("t.parquet*"))


def killed_at(write: int, words: list[object]) -> None:
    """Run the command in a process that is killed (-9) in the middle of its so-manieth file."""
    program = f"""
import os, signal, sys
from slicesim.live import parts
from slicesim.trace import store
calls = 0
def write_trace(path, header, blocks):
    global calls
    calls += 1
    def cut():
        yield next(iter(blocks))
        os.kill(os.getpid(), signal.SIGKILL)
    store.write_trace(path, header, cut() if calls == {write} else blocks)
parts.write_trace = write_trace
from slicesim.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(("write", "finished"), [(1, 0), (3, 2), (4, 3)])
def test_a_killed_capture_goes_on_and_comes_to_the_same_bytes(
    write: int, finished: int, model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim
) -> None:
    """Killed in the first request, in the last one, and while the parts are joined."""
    whole, out = tmp_path / "whole" / "t.parquet", tmp_path / "t.parquet"
    asked = ["capture", model_folder("deepseek-v2"), "--prompts", prompts, "--max-new-tokens", NEW, "--threads", 1]
    assert slicesim(*asked, "-o", whole).code == 0
    killed_at(write, [*asked, "-o", out])
    assert not out.exists()
    assert len(list(Path(f"{out}.parts").glob("0*.parquet"))) == finished
    told = slicesim(*asked, "-o", out)
    assert told.code == 0, told.err
    assert (f"{finished} of 3 requests were there from an earlier call" in told.out) == (finished > 0)
    assert out.read_bytes() == whole.read_bytes()
    assert ParquetTrace(out).digest == ParquetTrace(whole).digest
    assert not Path(f"{out}.parts").exists()
    left = {path.name for path in tmp_path.iterdir()} - {"whole", "t.parquet", "prompts.txt"}
    assert left <= {".t.parquet.partial"}  # of the killed process, joined anew over it


def test_other_arguments_are_refused_or_start_anew(
    model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim
) -> None:
    out = tmp_path / "t.parquet"
    folder = Path(shutil.copytree(model_folder("olmoe"), tmp_path / "m"))
    asked = ["capture", folder, "--prompts", prompts, "-o", out]
    killed_at(2, [*asked, "--max-new-tokens", NEW])
    told = slicesim(*asked, "--max-new-tokens", 4)
    assert told.code == 2
    assert told.err == (
        f"slicesim: {out}.parts: holds requests of another capture (other: notes): repeat that one to finish it, "
        "or give --restart to throw them away\n"
    )
    prompts.write_text("w1")
    assert "(other: source)" in slicesim(*asked, "--max-new-tokens", NEW).err
    tiny.build("olmoe").save_pretrained(folder)
    assert "(other: source, weights)" in slicesim(*asked, "--max-new-tokens", NEW).err
    assert slicesim(*asked, "--max-new-tokens", 4, "--restart").code == 0
    assert len(read(out)[1]) == 1 + 4
    assert not Path(f"{out}.parts").exists()


def test_a_part_that_breaks_off_is_made_again(model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim) -> None:
    out = tmp_path / "t.parquet"
    asked = ["capture", model_folder("olmoe"), "--prompts", prompts, "-o", out, "--max-new-tokens", NEW]
    killed_at(3, asked)
    part = Path(f"{out}.parts") / "000001.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    assert "1 of 3 requests were there" in slicesim(*asked).out
    assert len(read(out)[1]) > 3 * NEW


def test_two_captures_of_one_trace_at_once_are_refused(
    model_folder, prompts: Path, tmp_path: Path, slicesim: Slicesim
) -> None:
    import fcntl

    out = tmp_path / "t.parquet"
    Path(f"{out}.parts").mkdir()
    with (Path(f"{out}.parts") / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = slicesim("capture", model_folder("olmoe"), "--prompts", prompts, "-o", out, "--max-new-tokens", NEW)
    assert told.code == 2
    assert "another capture is at work here" in told.err
