"""The encoder keeps pixels in place and images apart."""

import pytest
import torch

from xr2ct.unet import UNet


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet((8, 16, 24), convolutions=2)


@pytest.mark.parametrize("size", [(32, 32), (27, 38), (5, 3)], ids=["even", "odd", "tiny"])
def test_every_image_size_keeps_its_pixels(unet, size):
    assert unet(torch.rand(2, 1, *size)).shape == (2, 8, *size)


def test_images_of_a_batch_do_not_mix(unet):
    images = torch.rand(3, 1, 24, 24)
    torch.testing.assert_close(unet(images)[1:2], unet(images[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [2, 3], ids=["v", "u"])
def test_moving_the_picture_moves_the_features(unet, axis):
    image = torch.zeros(1, 1, 96, 96)
    image[0, 0, 44:50, 41:46] = torch.rand(6, 5)
    moved = unet(image.roll(8, axis))  # a multiple of the coarsest pixel
    torch.testing.assert_close(
        moved[..., 36:60, 36:60], unet(image).roll(8, axis)[..., 36:60, 36:60], atol=1e-4, rtol=1e-3
    )


def test_features_of_a_symmetric_picture_are_as_symmetric_as_symmetric_weights():
    torch.manual_seed(1)
    unet = UNet((8, 16), convolutions=1)
    for weight in unet.parameters():
        if weight.dim() == 4:
            weight.data = (weight + weight.flip(2, 3)) / 2
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(unet(image.flip(2, 3)).flip(2, 3), unet(image), atol=1e-5, rtol=1e-4)


def test_every_weight_is_used(unet):
    unet(torch.rand(1, 1, 16, 16)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in unet.parameters())


def test_a_head_sets_the_channels():
    assert UNet((8, 16), 1).channels == 8
    unet = UNet((8, 16), 1, head=5)
    assert unet.channels == 5
    assert unet(torch.rand(2, 1, 16, 12)).shape == (2, 5, 16, 12)


def test_norms_differ_in_whose_statistics_they_take():
    images = torch.rand(3, 1, 24, 24)
    for norm, mixed in (("group", False), ("batch", True)):
        torch.manual_seed(0)
        unet = UNet((8, 16), 1, norm=norm)
        assert (not torch.allclose(unet(images)[:1], unet(images[:1]), atol=1e-4)) is mixed
        unet.eval()
        torch.testing.assert_close(unet(images)[:1], unet(images[:1]), atol=1e-5, rtol=1e-5)


def test_feature_maps_are_channels_last():
    unet = UNet((8, 16), 1).to(memory_format=torch.channels_last)
    assert unet(torch.rand(2, 1, 16, 12)).is_contiguous(memory_format=torch.channels_last)
