"""The configuration file of a published model: what is read and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xatmorep.model.atmorep.settings import Settings
from xatmorep.testing.published import SMALL


def field(**changes: Any) -> list[Any]:
    entry = ["vorticity", [1, 32, [], 0], [96, 137], [12, 6, 12], [3, 9, 9], [0.5, 0.9, 0.2, 0.05]]
    for position, value in changes.items():
        entry[int(position[1:])] = value
    return entry


def test_one_field() -> None:
    settings = Settings.model_validate(SMALL)
    (found,) = settings.fields
    assert (found.name, found.width, found.coupled) == ("vorticity", 32, ())
    assert found.levels == (96, 105, 114, 123, 137)
    assert (found.tokens, found.token_shape) == ((12, 6, 12), (3, 9, 9))
    assert found.points == (36, 54, 108)
    assert found.scope == "global"
    assert settings.predicted == (("vorticity", 1.0),)


def test_what_does_not_shape_the_network_is_left_out() -> None:
    settings = Settings.model_validate(SMALL | {"wandb_id": "x", "lr_max": 1e-4, "new": [None]})
    assert settings == Settings.model_validate(SMALL)


def test_the_neighborhood_of_old_files_is_known() -> None:
    old = {key: value for key, value in SMALL.items() if key != "n_size"}
    assert Settings.model_validate(old).n_size == (36, 13.5, 27)


def test_files_of_2023_tell_their_shape() -> None:
    assert Settings.model_validate(SMALL).generation == "2024"
    assert Settings.model_validate(SMALL | {"file_shape": [-1, 721, 1440]}).generation == "2023"


def test_local_normalization_is_the_seventh_entry() -> None:
    settings = Settings.model_validate(SMALL | {"fields": [[*field(), "local", ["era5"]]]})
    assert settings.fields[0].scope == "local"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_att_type": "axial"}, "encoder_att_type"),
        ({"decoder_att_type": "axial"}, "decoder_att_type"),
        ({"decoder_self_att": True}, "decoder_self_att"),
        ({"with_cls": True}, "with_cls"),
        ({"learnable_mask": True}, "learnable_mask"),
        ({"size_token_info": 6}, "size_token_info"),
        ({"encoder_num_layers": 0}, "encoder_num_layers"),
        ({"with_qk_lnorm": None}, "with_qk_lnorm"),
        ({"fields": []}, "fields"),
        ({"fields": [["vorticity"]]}, r"a field is a list \[name, .* not \['vorticity'\]"),
        ({"fields": [field(p1=1024)]}, "network of field 'vorticity'"),
        ({"fields": [field(p3=[12, 6])]}, "tokens"),
        ({"fields": [field(p3=[12, 6, 0])]}, "tokens"),
        ({"fields": [field(p2=[])]}, "levels"),
        ({"fields": [field(p2=[0, 137])]}, "0 is the surface"),
        ({"fields": [[*field(), "regional"]]}, "scope"),
        ({"fields_prediction": [["u", 1.0]]}, "fields_prediction names 'u', the fields are"),
        ({"fields_prediction": []}, "fields_prediction"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(SMALL | changes)
