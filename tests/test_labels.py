import numpy as np
import pytest

from dataset.labels import (
    IGNORE_INDEX,
    MAX_CLASSES,
    UNKNOWN,
    ClassTable,
    cityscapes_classes,
    cityscapes_label_ids,
    cityscapes_train_ids,
    class_table,
    distinct_colors,
    lookup_table,
)

OFFICIAL = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck "
    "bus train motorcycle bicycle"
)
TRAINED_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_cityscapes_classes_are_ordered_by_train_id():
    classes = cityscapes_classes()
    assert [name.replace(" ", "_") for name in classes.names] == OFFICIAL.split()
    assert classes.colors[0] == (128, 64, 128)  # road
    assert classes.colors[10] == (70, 130, 180)  # sky
    assert classes.colors[18] == (119, 11, 32)  # bicycle


def test_cityscapes_train_ids_are_official():
    table = cityscapes_train_ids()
    assert table.shape == (256,) and table.dtype == np.uint8
    assert table[TRAINED_IDS].tolist() == list(range(19))
    others = sorted(set(range(34)) - set(TRAINED_IDS))
    assert (table[others] == IGNORE_INDEX).all()
    assert (table[34:] == UNKNOWN).all()  # 255 too: masks of train ids must not pass


def test_lookup_table_maps_unlisted_values_to_unknown():
    table = lookup_table({0: 1, 7: 0, 255: IGNORE_INDEX})
    assert (table[0], table[7], table[255]) == (1, 0, 255)
    assert (np.delete(table, [0, 7, 255]) == UNKNOWN).all()


@pytest.mark.parametrize("count", [2, 19, 100, MAX_CLASSES])
def test_generated_colors_differ_from_each_other_and_from_black(count):
    colors = distinct_colors(count)
    assert len(colors) == len(set(colors)) == count
    assert (0, 0, 0) not in colors  # of ignored pixels
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_generated_colors_do_not_change_when_a_class_is_added():
    assert distinct_colors(20)[:19] == distinct_colors(19)


def test_class_table_from_the_lists_of_a_configuration():
    table = class_table(["a", "b"], [[1, 2, 3], [4, 5, 6]])
    assert table == ClassTable(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert class_table(["a", "b"], ()).colors == distinct_colors(2)
    assert len(table) == 2


@pytest.mark.parametrize(
    ("names", "colors", "message"),
    [
        (["a", "b", "c"], [[0, 0, 0]] * 2, "3 class names, but 2 colours"),
        (["a"], [], "number of classes must be between 2 and 254, got 1"),
        ([str(i) for i in range(255)], [], "number of classes must be between 2 and 254, got 255"),
        (["a", "b", "a"], [], "class names must differ"),
        (["a", "b"], [[0, 0, 256], [0, 0, 0]], "256"),
        (["a", "b"], [[0, 0, -1], [0, 0, 0]], "-1"),
        (["a", "b"], [[0, 0], [0, 0]], "colour"),
    ],
)
def test_invalid_class_table(names, colors, message):
    with pytest.raises(ValueError, match=message):
        class_table(names, colors)


def test_label_ids_are_the_inverse_of_train_ids():
    back = cityscapes_label_ids()
    assert back[:19].tolist() == TRAINED_IDS
    assert np.array_equal(cityscapes_train_ids()[back[:19]], np.arange(19))
    assert not back[19:].any()
