import numpy as np

from sr_train.monitoring.comparison import hardest_corner, panel, sheet


def test_the_crop_is_where_bicubic_is_farthest_off():
    gt = np.zeros((64, 96, 3), np.uint8)
    bicubic = gt.copy()
    bicubic[20:30, 70:80] = 255
    top, left = hardest_corner(bicubic, gt, 16)
    assert 20 - 12 <= top <= 20
    assert 70 - 12 <= left <= 72


def test_a_panel_shows_three_crops_side_by_side():
    gt = np.full((40, 50, 3), 200, np.uint8)
    row = panel(gt // 2, gt // 4, gt, size=32)
    assert row.shape == (32, 3 * 32 + 8, 3)
    assert (row[0, 0, 0], row[0, 40, 0], row[0, -1, 0]) == (100, 50, 200)


def test_small_grey_and_16_bit_images_have_panels_too():
    gt = np.full((7, 5, 1), 65535, np.uint16)
    row = panel(gt, gt, gt)
    assert row.shape == (7, 23, 3)
    assert row.dtype == np.uint8
    assert row.min() == 255


def test_a_sheet_holds_panels_of_different_width():
    rows = [np.zeros((10, 30, 3), np.uint8), np.zeros((8, 20, 3), np.uint8)]
    page = sheet(rows, ["one", "two"])
    assert page.shape == (2 * 28 + 2 * 18, 60, 3)
    assert page[-1, -1, 0] == 255
