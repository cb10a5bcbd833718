"""Caches of tokens: what was encoded comes back as it was, and what does not fit is refused."""

import json
import re
import threading

import pytest
import torch

from fluid_core.assembly import build_dataset, build_model
from fluid_core.catalog import installed_components
from fluid_core.configuration import ComponentChoice
from fluid_core.data.batches import BatchLoader
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.data.options import TokenCacheOptions
from fluid_core.data.token_cache.dataset import TokenCacheDataset
from fluid_core.data.token_cache.manifest import read_manifest
from fluid_core.data.token_cache.shard_files import checksum_problems
from fluid_core.errors import CheckpointError, CheckpointMismatchError, ConfigurationError, DataError
from fluid_core.exchange import BatchShare, DatasetContext

SIZE = (24, 24)


@pytest.fixture(scope="module")
def built(cache_config, make_builder, tmp_path_factory):
    """The folder of a cache of both flips in shards of 8 images, and its configuration; not to be changed."""
    folder, config = tmp_path_factory.mktemp("built") / "cache", cache_config()
    make_builder(config, folder, both_flips=True, shard_megabytes=0.12).build()
    return folder, config


def opened(folder, split="train", **options):
    """The data set of a cache."""
    return TokenCacheDataset(TokenCacheOptions(path=str(folder), **options), SIZE, split)


def pictures(config, split="train"):
    """The data set that was encoded."""
    return build_dataset(config.data, DatasetContext(image_size=SIZE, split=split))


def test_items_are_what_the_tokenizer_returns(built):
    """Every item, and its mirror image behind all others, is bit for bit what `precompute` makes of the picture."""
    folder, config = built
    tokenizer = build_model(config).tokenizer
    for split, count in (("train", 30), ("validation", 10)):
        dataset, images = opened(folder, split), pictures(config, split)
        assert isinstance(dataset, EncodedImages)
        assert len(dataset) == 2 * count
        for index in range(count):
            item, mirrored = dataset[index], dataset[index + count]
            assert item.caption == mirrored.caption == images[index].caption
            for encoded, picture in ((item, images[index].image), (mirrored, images[index].image.flip(-1))):
                expected = tokenizer.precompute(picture[None])
                assert encoded.precomputed.keys() == expected.keys()
                for name, tensor in expected.items():
                    assert torch.equal(encoded.precomputed[name], tensor[0])
                    assert encoded.precomputed[name].dtype == tensor.dtype


def test_ids_take_the_smallest_type(cache_config, make_builder, tmp_path):
    """A vocabulary of 24 fits a byte; the tokenizer gets back the type that it returned."""
    make_builder(cache_config("discrete"), tmp_path / "small").build()
    stored = read_manifest(tmp_path / "small").tensors[0]
    assert (stored.name, stored.dtype, stored.stored_as) == ("ids", "int64", "uint8")
    assert opened(tmp_path / "small")[3].precomputed["ids"].dtype == torch.int64
    larger = ComponentChoice(name="patch-codebook", options={"image_size": 24, "patch_size": 8, "vocabulary_size": 300})
    config = cache_config("discrete", tokenizer=larger)
    make_builder(config, tmp_path / "larger").build()
    assert read_manifest(tmp_path / "larger").tensors[0].stored_as == "uint16"
    items, images, model = opened(tmp_path / "larger"), pictures(config), build_model(config)
    items.connect(model.tokenizer, model.text_encoder)
    for index in range(30):
        expected = model.tokenizer.precompute(images[index].image[None])["ids"][0]
        assert torch.equal(items[index].precomputed["ids"], expected)


def test_half_the_room_for_moments_costs_rounding(cache_config, make_builder, tmp_path):
    """Moments stored as bfloat16 come back as float32 within its eight bits."""
    config = cache_config()
    make_builder(config, tmp_path / "whole").build()
    make_builder(config, tmp_path / "half", dtype="bfloat16").build()
    whole, half = (opened(tmp_path / name)[5].precomputed["patches"] for name in ("whole", "half"))
    assert half.dtype == torch.float32
    assert 0 < float((whole - half).abs().max()) <= 2**-8
    sizes = [read_manifest(tmp_path / name).num_bytes for name in ("whole", "half")]
    assert 0.5 < sizes[1] / sizes[0] < 0.6
    with pytest.raises(CheckpointMismatchError, match="type of 'patches': bfloat16 in the cache, float32 in the opt"):
        opened(tmp_path / "half", dtype="float32")


def test_the_manifest_says_how_it_was_made(built):
    """Source, parts, sizes and counts can be read by people."""
    folder, config = built
    written = json.loads((folder / "manifest.json").read_text())
    assert written["format_version"] == 1
    assert written["image_size"] == [24, 24]
    assert written["source"]["name"] == "shapes"
    assert written["source"]["options"]["max_objects"] == 4, "options with their default are named as well"
    assert written["tokenizer"]["identity"] == build_model(config).tokenizer.identity()
    assert written["num_source_items"] == {"train": 30, "validation": 10}
    assert [shard["num_items"] for shard in written["shards"]["train"]] == [8, 8, 8, 6]
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "tokenizer.safetensors",
        *(f"train-0000{number}.safetensors" for number in range(4)),
        *(f"validation-0000{number}.safetensors" for number in range(2)),
    }


def test_few_shards_are_open_at_once(built):
    """Visits all over the cache keep no more files mapped than allowed, also from several threads."""
    dataset = opened(built[0], max_open_shards=2)
    expected = [opened(built[0])[index].precomputed["patches"] for index in range(60)]
    wrong = []

    def visit(step):
        found = {index: dataset[index].precomputed["patches"] for index in (step * i % 60 for i in range(60))}
        wrong.extend(index for index, patches in found.items() if not torch.equal(patches, expected[index]))

    threads = [threading.Thread(target=visit, args=(step,)) for step in (7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert dataset._open.num_open == 2


def test_batches_follow_from_the_step(built):
    """Another loader, started later, hands out the same batches; the shares of two processes make up the whole."""
    whole = BatchLoader(opened(built[0]), batch_size=7, seed=3)
    later = BatchLoader(opened(built[0]), batch_size=7, seed=3)
    shares = [BatchShare(first=0, count=3, total=7), BatchShare(first=3, count=4, total=7)]
    parts = [BatchLoader(opened(built[0]), batch_size=7, seed=3, share=share) for share in shares]
    try:
        batches = [whole.batch(step) for step in range(12)]
        assert later.batch(11).captions == batches[11].captions
        halves = [part.batch(11) for part in parts]
        assert halves[0].captions + halves[1].captions == batches[11].captions
        together = torch.cat([half.precomputed["patches"] for half in halves])
        assert torch.equal(together, batches[11].precomputed["patches"])
    finally:
        for loader in (whole, later, *parts):
            loader.close()


@pytest.mark.parametrize("verify", ["sizes", "checksums"])
def test_damage_is_noticed(cache_config, make_builder, tmp_path, verify):
    """A cut or missing shard is named at once, a changed byte by its checksum."""
    make_builder(cache_config(), tmp_path, validation=False).build()
    shard = tmp_path / "train-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    if verify == "checksums":
        with pytest.raises(CheckpointError, match=r"train-00000.safetensors: SHA-256 \w+, expected"):
            opened(tmp_path, verify=verify)
    else:
        assert len(opened(tmp_path, verify=verify)) == 30
        assert checksum_problems(tmp_path, read_manifest(tmp_path).shards["train"][0])
    shard.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=rf"train-00000.safetensors: {len(whole) - 1} bytes, expected"):
        opened(tmp_path, verify=verify)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"train-00000.safetensors: missing"):
        opened(tmp_path, verify=verify)


def test_a_manifest_that_can_not_be_read_is_refused(cache_config, make_builder, tmp_path):
    """No manifest, half of one, one of a newer format, and one with a key too many: each says what to do."""
    with pytest.raises(CheckpointError, match=r"Expected a cache with a manifest.json in .*, found none"):
        opened(tmp_path)
    make_builder(cache_config(), tmp_path, validation=False).build()
    file = tmp_path / "manifest.json"
    text = file.read_text()
    file.write_text(text[:100])
    with pytest.raises(CheckpointError, match=r"manifest.json is damaged"):
        opened(tmp_path)
    file.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(CheckpointError, match="format 2; this version of fluid-core reads formats up to 1"):
        opened(tmp_path)
    file.write_text(text.replace('"crop"', '"cropped"'))
    with pytest.raises(CheckpointError, match="unknown key 'cropped'"):
        opened(tmp_path)


def test_another_size_and_a_missing_split_are_refused(built, cache_config, make_builder, tmp_path):
    """Both sizes are named, and the splits there are."""
    options = TokenCacheOptions(path=str(built[0]))
    with pytest.raises(CheckpointMismatchError, match="24 x 24 pixels in the cache, 32 x 32 in the model"):
        TokenCacheDataset(options, (32, 32), "train")
    make_builder(cache_config(), tmp_path, validation=False).build()
    with pytest.raises(ConfigurationError, match="hold the split 'validation', found only train"):
        opened(tmp_path, "validation")


def test_another_tokenizer_is_refused_with_both_sides_named(built, cache_config):
    """The identity of the cache's tokenizer and of the model's stand side by side."""
    folder, config = built
    model = build_model(
        cache_config(tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 24, "patch_size": 4}))
    )
    known = [build_model(one).tokenizer.identity()[:12] for one in (config, model.config)]
    sides = rf"pixel-patches \(identity {known[0]}\) in the cache, PixelPatches \(identity {known[1]}\) here"
    with pytest.raises(CheckpointMismatchError, match=sides):
        opened(folder).connect(model.tokenizer, model.text_encoder)


def test_other_codewords_are_refused_and_fresh_ones_taken_over(cache_config, make_builder, tmp_path):
    """A codebook fitted elsewhere means other ids; a tokenizer without one gets that of the cache, if it fits."""
    config = cache_config("discrete")
    builder = make_builder(config, tmp_path)
    builder.build()
    fresh, other = build_model(config), build_model(config)
    opened(tmp_path).connect(fresh.tokenizer, fresh.text_encoder)
    assert fresh.tokenizer.fitted
    other.tokenizer.fit(torch.rand(8, 3, 24, 24) * 2 - 1, seed=0)
    with pytest.raises(CheckpointMismatchError, match="tokenizer: patch-codebook"):
        opened(tmp_path).connect(other.tokenizer, other.text_encoder)
    options = {"image_size": 24, "patch_size": 8, "vocabulary_size": 25}
    larger = build_model(cache_config("discrete", tokenizer=ComponentChoice(name="patch-codebook", options=options)))
    with pytest.raises(
        CheckpointMismatchError, match=r"PatchCodebook \(no identity yet: it has learned nothing\) here"
    ):
        opened(tmp_path).connect(larger.tokenizer, larger.text_encoder)


def test_pictures_are_needed_elsewhere(built):
    """What wants pictures refuses a cache by name, as caches are refused by mixtures."""
    choice = ComponentChoice(name="token-cache", options={"path": str(built[0])})
    context = DatasetContext(image_size=SIZE)
    with pytest.raises(ConfigurationError, match="found 'token-cache', whose images are tokens already"):
        build_dataset(choice, context)
    assert len(build_dataset(choice, context, may_be_encoded=True)) == 60
    parts = [{"name": "token-cache", "options": choice.options}, {"name": "shapes"}]
    with pytest.raises(ConfigurationError, match="those of 'token-cache' are tokens already"):
        build_dataset(ComponentChoice(name="mixture", options={"parts": parts}), context)


def text_choice(name, folder, **changes):
    """A tiny frozen text encoder, written to `folder`."""
    options = installed_components().find("text-encoder", name).example_options(folder)
    return ComponentChoice(name=name, options={"path": options.path, **changes})


@pytest.mark.parametrize("name", ["t5", "transformers-encoder"])
def test_text_states_have_their_true_length(cache_config, make_builder, tmp_path, name):
    """States come back as the encoder gives them, without padding, and a batch is padded to its longest."""
    config = cache_config(text_encoder=text_choice(name, tmp_path / "text"))
    make_builder(config, tmp_path / "cache").build()
    dataset, encoder = opened(tmp_path / "cache"), build_model(config).text_encoder
    captions = [dataset[index].caption for index in range(30)]
    lengths = set()
    for index, caption in enumerate(captions):
        expected = encoder.encode([caption])
        lengths.add(expected.states.shape[1])
        assert dataset[index].text.dtype == torch.float32
        torch.testing.assert_close(dataset[index].text, expected.states[0], atol=1e-5, rtol=1e-5)
    assert len(lengths) > 3
    loader = BatchLoader(dataset, batch_size=6, seed=0)
    try:
        batch = loader.batch(0)
    finally:
        loader.close()
    expected = encoder.encode(batch.captions)
    assert torch.equal(batch.text.mask, expected.mask)
    torch.testing.assert_close(batch.text.states, expected.states, atol=1e-5, rtol=1e-5)
    assert not batch.text.states[~batch.text.mask].any()


def test_a_caption_is_stored_once_in_a_shard(cache_config, make_builder, tmp_path):
    """Mirror images and equal captions share states, and the file is as small as that allows."""
    config = cache_config(text_encoder=text_choice("t5", tmp_path / "text"))
    manifest = make_builder(config, tmp_path / "cache", both_flips=True, validation=False).build()
    dataset, encoder = opened(tmp_path / "cache"), build_model(config).text_encoder
    captions = {dataset[index].caption for index in range(60)}
    states = sum(encoder.encode([caption]).states.nbytes for caption in captions)
    patches = 60 * dataset[0].precomputed["patches"].nbytes
    assert patches + states < manifest.num_bytes < 1.1 * (patches + states)


def test_text_can_be_left_out_or_rounded(cache_config, make_builder, tmp_path):
    """Without text only captions are kept; bfloat16 states come back as float32; asking for more is refused."""
    config = cache_config(text_encoder=text_choice("t5", tmp_path / "text"))
    make_builder(config, tmp_path / "none", text=False, validation=False).build()
    make_builder(config, tmp_path / "half", text_dtype="bfloat16", validation=False).build()
    none, half = opened(tmp_path / "none"), opened(tmp_path / "half")
    assert none[0].text is None
    assert none[0].caption == half[0].caption
    exact = build_model(config).text_encoder.encode([half[0].caption]).states[0]
    assert torch.equal(half[0].text, exact.bfloat16().float()) or torch.allclose(half[0].text, exact, rtol=2**-7)
    with pytest.raises(CheckpointMismatchError, match="type of text states: no text states in the cache, float32"):
        opened(tmp_path / "none", text_dtype="float32")
    with pytest.raises(CheckpointMismatchError, match="type of text states: bfloat16 in the cache, float32"):
        opened(tmp_path / "half", text_dtype="float32")
    assert opened(tmp_path / "half", use_text=False)[0].text is None


def test_another_text_encoder_is_refused(cache_config, make_builder, tmp_path):
    """Other weights, another kind, another type of weights and another length are refused, unless text is not used."""
    first = text_choice("t5", tmp_path / "text")
    make_builder(cache_config(text_encoder=first), tmp_path / "cache", validation=False).build()
    dataset = opened(tmp_path / "cache")
    same = build_model(cache_config(text_encoder=first))
    dataset.connect(same.tokenizer, same.text_encoder)
    with torch.no_grad():
        next(same.text_encoder.parameters()).add_(1e-3)
    for model in (
        same,
        build_model(cache_config(text_encoder=ComponentChoice(name="t5", options={**first.options, "max_length": 32}))),
        build_model(
            cache_config(text_encoder=ComponentChoice(name="t5", options={**first.options, "dtype": "bfloat16"}))
        ),
        build_model(cache_config()),
    ):
        found = type(model.text_encoder).__name__
        with pytest.raises(CheckpointMismatchError, match=rf"text encoder: t5 \(identity .*in the cache, {found} \("):
            dataset.connect(model.tokenizer, model.text_encoder)
        opened(tmp_path / "cache", use_text=False).connect(model.tokenizer, model.text_encoder)


def test_copies_of_an_encoder_are_the_same_encoder(cache_config, make_builder, tmp_path):
    """A folder that was moved is no other text encoder."""
    first = text_choice("t5", tmp_path / "text")
    make_builder(cache_config(text_encoder=first), tmp_path / "cache", validation=False).build()
    (tmp_path / "text").rename(tmp_path / "moved")
    moved = ComponentChoice(name="t5", options={"path": str(tmp_path / "moved")})
    model = build_model(cache_config(text_encoder=moved))
    opened(tmp_path / "cache").connect(model.tokenizer, model.text_encoder)


def test_indices_outside_raise(built):
    """Below zero and from the length on there is nothing."""
    dataset = opened(built[0])
    for index in (-1, 60):
        with pytest.raises(IndexError, match=re.escape("items 0 to 59")):
            dataset[index]


def test_an_encoder_that_pads_in_front_is_refused():
    """Its states can not be cut to their true length in place."""
    from fluid_core.data.token_cache.shard_content import ShardContent
    from fluid_core.exchange import TextFeatures

    content = ShardContent((), both_flips=False, text_dtype=torch.float32)
    features = TextFeatures(states=torch.zeros(1, 3, 2), mask=torch.tensor([[False, True, True]]))
    with pytest.raises(DataError, match="found states behind padding"):
        content.add_texts(["a"], features)
