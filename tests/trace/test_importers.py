from __future__ import annotations

import json

import numpy as np
import pytest

from slicesim.errors import UserError
from slicesim.trace import DECODE, PREFILL, load_trace
from slicesim.trace.importers import IMPORTERS, ImportOptions, import_trace
from slicesim.trace.order import OrderCheck
from slicesim.trace.table import ABSENT, require_faultless
from tests.trace.samples import assert_same

MODEL = ImportOptions(model="olmoe-1b-7b")  # 16 MoE layers from 0, 64 experts

TRACES = [
    # path, format, tokens, layers, top-k, experts, score kind, requests
    ("deepseek-v2-lite/law.npz", "npz", 8327, 26, 6, 64, "softmax", 33),
    ("deepseek-v2-lite/summary.npz", "npz", 8479, 26, 6, 64, "softmax", 13),
    ("qwen1.5-moe/gsm8k_5layers.npz", "npz", 3521, 5, 4, 60, "softmax", 26),
    ("deepseek-moe-16b/full_softmax.npz", "npz", 87, 27, 6, 64, "softmax", 10),
    ("gpt-oss-20b/decode.npz", "npz", 25624, 24, 4, 32, "renormalised", 60),
    ("deepseek-v2-lite/esft-native", "esft", 1342, 3, 6, 64, "softmax", 6),
    ("deepseek-v2-lite/esft-native/expert_weights_2.txt", "esft", 1342, 1, 6, 64, "softmax", 6),
    ("bigmoe-on-edge/qwen.route.csv", "route-trace", 156, 48, 6, 128, "renormalised", 1),
    ("bigmoe-on-edge/gptoss.route.csv", "route-trace", 149, 36, 2, 128, "renormalised", 1),
]


@pytest.mark.parametrize(("path", "name", "tokens", "layers", "top_k", "experts", "kind", "requests"), TRACES)
def test_real_traces(shared_data, path, name, tokens, layers, top_k, experts, kind, requests):
    file = shared_data / "traces" / path
    trace = import_trace(file, ImportOptions())
    facts = trace.header
    assert next(n for n, importer in IMPORTERS.items() if importer.sniff(file)) == name
    assert trace.block.ids.shape == (tokens, layers, top_k)
    assert (len(facts.layers), facts.top_k, facts.experts, facts.score_kind) == (layers, top_k, experts, kind)
    assert len(trace.request_lengths()) == requests
    require_faultless(facts, trace.block, trace.name)
    assert list(OrderCheck().faults(trace.block)) == []
    assert not facts.synthetic


def test_npz_provenance_and_scores(shared_data):
    trace = import_trace(shared_data / "traces/deepseek-v2-lite/law.npz", ImportOptions())
    assert trace.header.layers == list(range(1, 27))
    assert trace.header.source.startswith("deepseek-ai/ESFT: results/expert_scores/law/")
    assert trace.header.licence == "MIT (code), DeepSeek model licence"
    assert trace.block.scores[0, 0].tolist() == [0.0411, 0.0470, 0.0446, 0.1789, 0.0859, 0.0379]
    assert (trace.block.phase == PREFILL).all()


def test_npz_requests_are_put_together_and_tokens_numbered_from_0(shared_data):
    trace = import_trace(shared_data / "traces/qwen1.5-moe/gsm8k_5layers.npz", ImportOptions())
    first = trace.block.request == 0
    assert trace.request_lengths()[0] == first.sum() == 148
    assert first[:148].all()
    assert trace.block.token[:148].tolist() == list(range(148))
    assert set(trace.block.phase[:148].tolist()) == {PREFILL, DECODE}


def test_npz_full_softmax_becomes_logits_whose_stock_top_k_is_the_route(shared_data):
    trace = import_trace(shared_data / "traces/deepseek-moe-16b/full_softmax.npz", ImportOptions())
    block = trace.block
    assert trace.header.has_logits
    assert block.logits is not None
    assert block.logits.dtype == np.float32
    stock = np.argsort(-block.logits, axis=2, kind="stable")[..., :6]
    np.testing.assert_array_equal(np.sort(stock), np.sort(block.ids))
    softmax = np.exp(block.logits) / np.exp(block.logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(np.take_along_axis(softmax, block.ids, 2), block.scores, rtol=2e-3)


def test_esft_logs_are_the_first_sequences_of_law(shared_data):
    native = import_trace(shared_data / "traces/deepseek-v2-lite/esft-native", ImportOptions())
    law = import_trace(shared_data / "traces/deepseek-v2-lite/law.npz", ImportOptions())
    tokens = len(native.block)
    assert native.header.layers == [1, 2, 3]
    assert native.header.model == "DeepSeek-V2-Lite"
    np.testing.assert_array_equal(native.block.request, law.block.request[:tokens])
    np.testing.assert_array_equal(native.block.token, law.block.token[:tokens])
    np.testing.assert_array_equal(native.block.ids, law.block.ids[:tokens, :3])
    np.testing.assert_allclose(native.block.scores, law.block.scores[:tokens, :3], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "prompt", "decode", "layer"), [("qwen", 28, 128, 47), ("gptoss", 85, 64, 35)])
def test_route_trace_keeps_sizes_and_the_partial_last_layer(shared_data, name, prompt, decode, layer):
    trace = import_trace(shared_data / f"traces/bigmoe-on-edge/{name}.route.csv", ImportOptions())
    facts, block = trace.header, trace.block
    assert [(block.phase == p).sum() for p in (PREFILL, DECODE)] == [prompt, decode]
    assert facts.partial_prefill_layers == [layer]
    absent = (block.ids == ABSENT).all(axis=2)
    assert absent[: prompt - 1, layer].all()
    assert absent.sum() == prompt - 1
    assert facts.expert_bytes is not None
    assert len(facts.expert_bytes) == len(facts.layers)
    if name == "qwen":
        assert facts.expert_bytes[:7] == [3059712] * 6 + [2654208]
        assert facts.model == "Qwen3-30B-A3B-Q4_K_M.gguf"
        assert block.ids[0, 0].tolist()[:3] == [49, 19, 58]


# Files made here: two requests of two tokens, two layers, top-2.

RENORMALISED = [0.75, 0.25]


def records(**extra):
    return [
        {
            "req_id": name,
            "token_idx": token,
            "layer": layer,
            "topk_ids": [10 * layer + token, 40 + index],
            "topk_weights": RENORMALISED,
            "phase": "prefill" if token == 0 else "decode",
        }
        | extra
        for index, name in enumerate(("cmpl-b", "cmpl-a"))
        for token in (0, 1)
        for layer in (0, 3)
    ]


def jsonl(path, lines):
    path.write_text("".join((text if isinstance(text, str) else json.dumps(text)) + "\n" for text in lines))
    return path


def csv(path, lines):
    path.write_text("\n".join(["# a comment", "request,token,phase,layer,slot,expert,score", *lines]) + "\n")
    return path


def csv_lines():
    return [
        f"{5 - index},{r['token_idx']},{r['phase']},{r['layer']},{slot},{r['topk_ids'][slot]},{RENORMALISED[slot]}"
        for index, r in ((i // 4, r) for i, r in enumerate(records()))
        for slot in (0, 1)
    ]


def test_jsonl_and_csv_are_the_same_trace_in_any_order(tmp_path):
    lines = records()
    mixed = [lines[i] for i in (0, 4, 7, 1, 3, 2, 6, 5)]
    plain = import_trace(jsonl(tmp_path / "a.jsonl", lines), MODEL)
    assert_same(import_trace(jsonl(tmp_path / "b.jsonl", mixed), MODEL).block, plain.block)
    assert plain.block.request.tolist() == [0, 0, 1, 1]
    assert plain.block.phase.tolist() == [0, 1, 0, 1]
    assert plain.header.layers == [0, 3]
    assert plain.header.score_kind == "renormalised"
    assert plain.block.ids[1].tolist() == [[1, 40], [31, 40]]

    rows = csv_lines()
    shuffled = [rows[0], *rows[:0:-1]]
    table = import_trace(csv(tmp_path / "a.csv", shuffled), MODEL)
    assert table.block.request.tolist() == [5, 5, 4, 4]
    assert_same(table.block, _renamed(plain.block, table.block))


def _renamed(block, other):
    return type(block)(other.request, *block[1:])


def test_jsonl_numbers_and_logits(tmp_path):
    lines = [r | {"req_id": i // 4, "logits": [0.5] * 64} for i, r in enumerate(records())]
    trace = import_trace(jsonl(tmp_path / "a.jsonl", lines), MODEL)
    assert trace.header.has_logits
    assert trace.block.logits is not None
    assert trace.block.logits.shape == (4, 2, 64)


def test_jsonl_without_phases_is_decode_and_says_so(tmp_path):
    lines = [{k: v for k, v in r.items() if k != "phase"} for r in records()]
    trace = import_trace(jsonl(tmp_path / "a.jsonl", lines), MODEL)
    assert (trace.block.phase == DECODE).all()
    assert "phases were not recorded" in trace.header.notes


def _line(index, **changes):
    lines = records()
    lines[index] |= changes
    return lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*records()[:7], '{"req_id": "cmpl-a", "tok'], "line 8: not JSON, the last line: truncated?"),
        ([records()[0], "nonsense", *records()[1:]], "line 2: not JSON"),
        ([records()[0], "[1]", *records()[1:]], "line 2: must be a JSON object"),
        ([{k: v for k, v in r.items() if k != "layer"} for r in records()], "line 1: 'layer' is missing"),
        (_line(3, topk_ids=[1, 64]), "line 4: request 0, token 1, layer 3: expert id outside 0 to 63"),
        (_line(3, topk_ids=[1, -1]), "line 4: request 0, token 1, layer 3: expert id outside 0 to 63"),
        (_line(3, topk_ids=[-1, -1]), "line 4: request 0, token 1, layer 3: expert id outside 0 to 63"),
        (_line(3, topk_ids=[7, 7]), "line 4: request 0, token 1, layer 3: the same expert twice"),
        (_line(3, topk_weights=[0.5, float("nan")]), "line 4: request 0, token 1, layer 3: score is not a finite"),
        (_line(3, topk_weights=[0.5, -0.5]), "line 4: request 0, token 1, layer 3: negative score"),
        (_line(3, topk_ids=[1, 2, 3]), "line 4: topk_ids holds 3 values, not 2"),
        (_line(3, topk_ids="1 2"), "line 4: topk_ids must be a list of whole numbers"),
        (_line(3, topk_weights=[10**400, 1]), "line 4: topk_weights must be a list of numbers"),
        (_line(3, layer=16), "line 4: request 0, token 1, layer 16: OLMoE"),
        (_line(3, phase="prompt"), "line 4: phase must be prefill or decode"),
        (_line(3, phase="prefill"), "line 4: request 0, token 1, layer 3: another phase than in line 3"),
        (_line(3, logits=[0.0] * 64), "line 4: logits is given in some lines and not in others"),
        (_line(3, layer=0), "line 4: request 0, token 1, layer 0: given a second time, first in line 3"),
        ([*records()[:3], *records()[4:]], "line 3: request 0, token 1, layer 3: no row for this layer"),
        (
            [*records()[:2], *_line(2, token_idx=5)[2:3], *_line(3, token_idx=5)[3:]],
            "line 3: request 0, token 5: token",
        ),
        ([r | {"phase": "decode" if r["token_idx"] == 0 else "prefill"} for r in records()], "prefill after decode"),
    ],
)
def test_jsonl_faults_name_the_line(tmp_path, lines, message):
    path = jsonl(tmp_path / "a.jsonl", lines)
    with pytest.raises(UserError) as error:
        import_trace(path, MODEL)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def _field(row, place, value):
    lines = csv_lines()
    fields = lines[row].split(",")
    fields[place] = value
    lines[row] = ",".join(fields)
    return lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (_field(5, 5, "64"), "line 8: request 5, token 1, layer 0: expert id outside 0 to 63"),
        (_field(5, 5, "x"), "line 8: expert must be a whole number, is 'x'"),
        (_field(5, 5, ""), "line 8: expert must be a whole number, is ''"),
        (_field(5, 5, "9" * 30), "line 8: expert must be a whole number"),
        (_field(5, 6, "nan"), "line 8: request 5, token 1, layer 0: score is not a finite number"),
        (_field(5, 6, "-1"), "line 8: request 5, token 1, layer 0: negative score"),
        (_field(5, 6, "1.2.3"), "line 8: score must be a number"),
        (_field(5, 2, "prompt"), "line 8: phase must be prefill or decode, is 'prompt'"),
        (_field(5, 2, "prefill_"), "line 8: phase must be prefill or decode"),
        (_field(5, 4, "0"), "line 8: request 5, token 1, layer 0: slots [0, 0] where 0 to 1 should stand"),
        (_field(5, 4, "2"), "line 8: request 5, token 1, layer 0: slots [0, 2] where"),
        (csv_lines()[:-1], "line 17: request 4, token 1, layer 3: slots [0] where 0 to 1 should stand"),
        ([*csv_lines()[:-1], "4,1,dec"], "line 18: 3 fields, not 7; truncated?"),
        ([*csv_lines()[:5], "", "# note", *_field(5, 5, "x")[5:]], "line 10: expert must be"),
        ([*csv_lines()[:5], "", "# note", *_field(5, 5, "64")[5:]], "line 10: request 5"),
        ([], "holds no routes"),
    ],
)
def test_csv_faults_name_the_line(tmp_path, lines, message):
    with pytest.raises(UserError) as error:
        import_trace(csv(tmp_path / "a.csv", lines), MODEL)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_csv_with_a_missing_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("request,token,layer,slot,expert,score\n0,0,0,0,1,1.0\n")
    with pytest.raises(UserError, match="line 1: column 'phase' is missing"):
        import_trace(path, ImportOptions(format="csv", model="olmoe-1b-7b"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_formats_without_geometry_ask_for_the_model(tmp_path, name):
    path = tmp_path / name
    (jsonl if name == "a.jsonl" else csv)(path, records() if name == "a.jsonl" else csv_lines())
    with pytest.raises(UserError, match="--model"):
        load_trace(path)


def test_options_come_before_the_file(shared_data):
    path = shared_data / "traces/deepseek-moe-16b/full_softmax.npz"
    options = ImportOptions(
        source="here", licence="mine", score_kind="renormalised", synthetic=True, model="deepseek-v2-lite"
    )
    facts = import_trace(path, options).header
    assert (facts.source, facts.licence, facts.score_kind, facts.synthetic, facts.model) == (
        "here", "mine", "renormalised", True, "DeepSeek-V2-Lite"
    )  # fmt: skip
    for options, message in (
        (ImportOptions(model="qwen3-30b-a3b"), "has 128"),
        (ImportOptions(model="nothing"), "--model: no model 'nothing'"),
        (ImportOptions(score_kind="sharp"), "--score-kind: 'sharp' is none of"),
        (ImportOptions(top_k=4), "--top-k says 4"),
        (ImportOptions(format="tarot"), "no format 'tarot'; known: npz"),
        (ImportOptions(format="jsonl", model="olmoe-1b-7b"), "cannot be read as text"),
        (ImportOptions(format="csv", model="olmoe-1b-7b"), "cannot be read as text"),
        (ImportOptions(format="route-trace"), "must be '# route_trace v1'"),
        (ImportOptions(format="esft"), "no file expert_weights_<layer>.txt"),
    ):
        with pytest.raises(UserError) as error:
            import_trace(path, options)
        assert message in str(error.value)


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello\n")
    with pytest.raises(UserError) as error:
        load_trace(path)
    assert all(name in str(error.value) for name in ("npz", "esft", "route-trace", "jsonl", "csv"))
    with pytest.raises(UserError, match="no such trace"):
        import_trace(tmp_path / "b.txt", ImportOptions())


# npz


def archive(path, **changes):
    meta = {"model": "m", "E": 4, "K": 2, "w_scale": 100, "weight": "softmax probability"}
    arrays = {
        "ids": np.array([[[0, 1]], [[2, 3]]], np.uint8),
        "w": np.array([[[50, 20]], [[40, 30]]], np.uint16),
        "layers": np.array([3], np.int16),
        "seq": np.zeros(2, np.int32),
        "phase": np.zeros(2, np.uint8),
        "meta": np.array(json.dumps(meta | changes.pop("meta", {}))),
    }
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w": None}, "the array 'w' is missing"),
        ({"meta": {"w_scale": 0}}, "w_scale must be a number above 0"),
        ({"meta": {"K": 3}}, "ids has the shape (2, 1, 2), not (2, 1, 3)"),
        ({"meta": {"E": 3}}, "sequence 0, token 1, layer 3: expert id outside 0 to 2"),
        ({"ids": np.array([[[0, 1]], [[2, 2]]], np.uint8)}, "token 1, layer 3: the same expert twice"),
        ({"ids": np.array([[[0, 1]], [[2, 2]]], float)}, "'ids' must be an array of 3 dimensions of whole numbers"),
        ({"w": np.array([[[0.5, np.nan]], [[0.4, 0.3]]])}, "token 0, layer 3: score is not a finite number"),
        ({"phase": np.array([0, 2])}, "phase must be 0 (prompt) or 1 (decode)"),
        ({"layers": np.array([3, 4])}, "ids has the shape (2, 1, 2), not (2, 2, 2)"),
        ({"ids": np.array([[[None, {}]]], object)}, "not a whole npz archive of plain arrays"),
        ({"meta": {"model": "m", "E": "four"}}, "experts"),
    ],
)
def test_npz_faults(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        import_trace(archive(tmp_path / "a.npz", **changes), ImportOptions())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_npz_sound_and_truncated(tmp_path):
    path = archive(tmp_path / "a.npz")
    assert import_trace(path, ImportOptions()).block.token.tolist() == [0, 1]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a whole npz archive"):
        load_trace(path)


# ESFT


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ("1\t2\t3\t4\t\t.5\t.2\t.4\t.1", "1\t2\t\t.5\t.2", "expert_weights_2.txt: line 1: 1 tokens"),
        ("1\t2\t\t.5\t.2", "1\t2\t\t.5\t.2\n1\t2\t\t.5\t.2", "expert_weights_2.txt: 2 sequences"),
        ("1\t2\t\t.5\t.2", "1\t2\t.5\t.2", "expert_weights_2.txt: line 1: no double tab"),
        ("1\t2\t\t.5\t.2", "1\t2\t\t.5", "expert_weights_2.txt: line 1: 2 ids but 1 weights"),
        ("1\t2\t\t.5\t.2", "1\tx\t\t.5\t.2", "expert_weights_2.txt: line 1: ids must be whole numbers"),
        ("1\t2\t\t.5\t.2", "1\t2\t3\t\t.5\t.2\t.1", "line 1: 3 ids are no multiple of top-k 2"),
        ("1\t2\t\t.5\t.2", "1\t1\t\t.5\t.2", "expert_weights_2.txt: line 1: token 0: the same expert twice"),
        ("1\t2\t\t.5\t.2", "1\t64\t\t.5\t.2", "expert_weights_2.txt: line 1: token 0: expert id outside"),
        ("1\t2\t\t.5\t.2", "1\t2\t\t.5\tnan", "expert_weights_2.txt: line 1: token 0: score is not a finite"),
        ("", "", "expert_weights_1.txt: holds no sequence"),
    ],
)
def test_esft_faults_name_file_and_line(tmp_path, one, two, message):
    for layer, text in ((1, one), (2, two)):
        (tmp_path / f"expert_weights_{layer}.txt").write_text(text + "\n")
    with pytest.raises(UserError) as error:
        import_trace(tmp_path, ImportOptions(top_k=2))
    assert message in str(error.value)


# route_trace


def route_trace(path, *, version="v1", preamble=True, drop=(), replace=()):
    lines = [f"# route_trace {version}"]
    if preamble:
        lines += ["# model=tiny.gguf arch=x n_layer=2 n_expert=8 n_expert_used=2"]
        lines += [f"# layer={layer} expert_bytes={1000 + layer} dense_bytes=7" for layer in (0, 1)]
    lines.append("turn,phase,step,layer,slot,expert,weight,residency,expert_bytes")
    for phase, step in ((0, 0), (0, 1), (1, 2)):
        for layer in (0, 1):
            for slot in (0, 1):
                if (step, layer) not in drop:
                    lines.append(f"0,{phase},{step},{layer},{slot},{2 * layer + slot},0.3,1,1000")
    for number, text in replace:
        lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")
    return path


def test_route_trace_partial_only_if_it_is_so(tmp_path):
    whole = import_trace(route_trace(tmp_path / "a.csv"), ImportOptions()).header
    assert (whole.partial_prefill_layers, whole.score_kind) == ([], "softmax")
    assert whole.expert_bytes == [1000, 1001]
    partial = import_trace(route_trace(tmp_path / "b.csv", drop=[(0, 1)]), ImportOptions()).header
    assert partial.partial_prefill_layers == [1]
    for drop in ([(0, 1), (1, 1)], [(1, 1)], [(2, 1)], [(0, 0)]):
        with pytest.raises(UserError, match="no row for this layer"):
            import_trace(route_trace(tmp_path / "c.csv", drop=drop), ImportOptions())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "v2"}, "line 1: must be '# route_trace v1'"),
        ({"preamble": False}, "the preamble does not give model"),
        ({"replace": [(4, "# layer=7 expert_bytes=5")]}, "the preamble gives no expert_bytes for layer 1"),
        ({"replace": [(2, "# model=t n_layer=x n_expert=8 n_expert_used=2")]}, "must be whole numbers"),
        ({"replace": [(7, "0,2,0,0,1,1,0.3,1,1000")]}, "line 7: phase must be 0 (prompt) or 1 (decode)"),
        ({"replace": [(7, "0,0,0,0,1,9,0.3,1,1000")]}, "line 7: request 0, token 0, layer 0: expert id outside"),
        ({"replace": [(7, "0,0,0,0,1,0,0.3,1,1000")]}, "line 7: request 0, token 0, layer 0: the same expert"),
        ({"replace": [(7, "0,0,0,0,1,1,nan,1,1000")]}, "line 7: request 0, token 0, layer 0: score is not"),
        ({"replace": [(7, "0,0,0,0,1")]}, "line 7: 5 fields, not 9; truncated?"),
        ({"replace": [(17, "")]}, "line 16: request 0, token 2, layer 1: slots [0]"),
    ],
)
def test_route_trace_faults(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        import_trace(route_trace(tmp_path / "a.csv", **changes), ImportOptions())
    assert message in str(error.value)
