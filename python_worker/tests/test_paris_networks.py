"""The prepared expert against the bare one, and layers against those of torch."""

from __future__ import annotations

import torch

from baguette.families.paris.config import ExpertConfig
from baguette.families.paris.expert import Expert, PreparedExpert, Row
from baguette.families.paris.layers import Attention, PatchEmbed, initialise

SMALL = ExpertConfig(
    hidden_size=32, num_layers=2, num_heads=4, in_channels=3, out_channels=3, text_embed_dim=8,
    image_size=6,
)  # fmt: skip


def a_small_expert() -> Expert:
    torch.manual_seed(1)
    expert = Expert(SMALL)
    initialise(expert)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return expert.eval().requires_grad_(False)


def test_patch_embedding_is_the_convolution_it_stores() -> None:
    torch.manual_seed(0)
    embed = PatchEmbed(3, 16, 2)
    torch.nn.init.normal_(embed.weight)
    x = torch.randn(2, 3, 6, 6)
    expected = torch.nn.functional.conv2d(x, embed.weight, embed.bias, stride=2)
    torch.testing.assert_close(embed(x), expected.flatten(2).transpose(1, 2))


def test_attention_is_multihead_attention_with_the_same_packing() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x, text = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    torch.testing.assert_close(ours.cross(x, *ours.keys_values(text)), theirs(x, text, text)[0])


def test_unpatchify_puts_every_patch_where_patch_embedding_took_it() -> None:
    expert = a_small_expert()
    x = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    patches = x.reshape(2, 3, 3, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 9, 12)
    assert torch.equal(expert._unpatchify(patches, (6, 6)), x)


def test_a_prepared_expert_guides_as_the_formula_says() -> None:
    expert, text, null = a_small_expert(), torch.randn(5, 8), torch.randn(5, 8)
    prepared = PreparedExpert(expert)
    prepared.learn("text", text)
    prepared.learn("null", null)
    x = torch.randn(3, 6, 6)
    (velocity,) = prepared.velocity([Row(x, 0.5, 500.0, "text", "null", 3.0)])
    t = torch.tensor([500.0])
    conditional, unconditional = expert(x[None], t, text[None]), expert(x[None], t, null[None])
    expected = unconditional + 3.0 * (conditional - unconditional)
    torch.testing.assert_close(velocity, expected[0], atol=1e-5, rtol=1e-5)


def test_rows_of_different_times_and_texts_are_answered_in_their_order() -> None:
    prepared = PreparedExpert(a_small_expert())
    for name in ("a", "b", "null"):
        prepared.learn(name, torch.randn(5, 8))
    rows = [
        Row(torch.randn(3, 6, 6), 0.9, 900.0, "a", "null", 2.0),
        Row(torch.randn(3, 6, 6), 0.1, 100.0, "b", "null", 4.0),
    ]
    together = prepared.velocity(rows)
    for row, velocity in zip(rows, together, strict=True):
        torch.testing.assert_close(prepared.velocity([row])[0], velocity, atol=1e-5, rtol=1e-5)


def test_an_expert_computes_where_it_was_moved_to() -> None:
    prepared = PreparedExpert(a_small_expert())
    prepared.learn("text", torch.randn(5, 8))
    prepared.module.to("meta")
    rows = [Row(torch.zeros(3, 6, 6), t, 1000 * t, "text", "text", 2.0) for t in (0.2, 0.7)]
    assert prepared.together(rows)().device.type == "meta"


def test_what_is_missing_is_named_until_it_is_learnt() -> None:
    prepared = PreparedExpert(a_small_expert())
    row = Row(torch.zeros(3, 6, 6), 1.0, 1000.0, "b", "a", 1.0)
    assert prepared.missing([row]) == ["a", "b"]
    prepared.learn("a", torch.zeros(5, 8))
    assert prepared.missing([row]) == ["b"]
