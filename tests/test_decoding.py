import pytest
import torch
from helpers.tiny_models import EVERY_ARCHITECTURE, GPT2, START, C, Plain, V, build
from torch import Tensor, nn

from hindsight.config.model import ModelConfig
from hindsight.generation.decoding import Decoder, KeyValues


def tokens(n_rows: int, length: int, seed: int = 2) -> Tensor:
    return torch.randint(V - 1, (n_rows, length), generator=torch.Generator().manual_seed(seed))


def read(module: nn.Module, pieces: list[Tensor]) -> Tensor:
    """Logits behind each piece."""
    decoder = Decoder(module, START, C, n_rows=len(pieces[0]))
    return torch.stack([decoder.read(piece_BT) for piece_BT in pieces])


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("sizes", [[1] * 30, [0, 5, 1, 1, 3, 1], [4, 7, 2, 3, 6], [40, 1, 1]], ids=str)
def test_logits_are_those_of_the_whole_context_also_after_it_was_full(config: ModelConfig, n_rows: int, sizes: list):
    module = build(config)
    pieces = [*tokens(n_rows, sum(sizes)).split(sizes, dim=1)]
    expected = read(Plain(module), pieces)
    assert expected.std() > 0.3
    torch.testing.assert_close(read(module, pieces), expected, atol=1e-5, rtol=1e-5)


@EVERY_ARCHITECTURE
def test_a_full_context_begins_again_with_the_first_id_and_its_last_half(config: ModelConfig):
    module, read_BT = build(config), tokens(2, C)
    decoder = Decoder(module, START, C, n_rows=2)
    first_BV = decoder.read(read_BT[:, : C - 1])
    start_B1 = torch.full((2, 1), START)
    torch.testing.assert_close(first_BV, module(torch.cat((start_B1, read_BT[:, : C - 1]), 1))[:, -1])
    again_BV = decoder.read(read_BT[:, C - 1 :])
    torch.testing.assert_close(again_BV, module(torch.cat((start_B1, read_BT[:, C // 2 :]), 1))[:, -1])


@EVERY_ARCHITECTURE
def test_rows_go_on_alone_in_another_order_and_in_several_ways(config: ModelConfig):
    module, read_BT = build(config), tokens(3, 5)
    decoder = Decoder(module, START, C, n_rows=3)
    decoder.read(read_BT[:, :4])
    decoder.keep([2, 0, 2])
    kept_BT = torch.cat((read_BT[[2, 0, 2], :4], tokens(3, 1, seed=3)), 1)
    expected_BV = module(torch.cat((torch.full((3, 1), START), kept_BT), 1))[:, -1]
    torch.testing.assert_close(decoder.read(kept_BT[:, 4:]), expected_BV)
    decoder.keep([1])
    more_BT = torch.cat((kept_BT[1:2], tokens(1, 8, seed=4)), 1)
    expected_BV = module(torch.cat((torch.full((1, 1), START), more_BT[:, -C // 2 :]), 1))[:, -1]
    torch.testing.assert_close(decoder.read(more_BT[:, 5:]), expected_BV, msg="behind the end of the context")


def test_a_token_is_computed_once_until_the_context_is_full():
    module, sizes = build(GPT2), []
    module.get_submodule("embedding").register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[1]))
    read(module, [*tokens(2, 25).split([4] + [1] * 21, dim=1)])
    again = 1 + C // 2
    assert sizes == [5, *[1] * 7, again, *[1] * 5, again, *[1] * 5, again, 1]


def test_room_for_keys_is_made_rarely():
    keys, stored = KeyValues(), set()
    for _ in range(40):
        keys.attend(torch.zeros(1, 4, 1, 8), torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8))
        assert keys.k_BGNK is not None
        stored.add(keys.k_BGNK.shape[2])
    assert stored == {1, 2, 4, 8, 16, 32, 64}


@EVERY_ARCHITECTURE
def test_a_decoder_leaves_the_random_state_and_the_mode_and_keeps_no_graph(config: ModelConfig):
    module = build(config)
    before = torch.get_rng_state()
    assert not read(module, [tokens(2, 5), tokens(2, 1)]).requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
