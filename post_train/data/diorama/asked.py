"""What a text asks a film of the Diorama world to show: the measure that text alignment is taken against."""

from __future__ import annotations

from dataclasses import dataclass

from post_train.data.diorama.record import Scene
from post_train.data.diorama.vocabulary import Action, Camera, Ground, Sky, Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedObject:
    """One object that is asked for; None where the text leaves the choice open."""

    name: str
    colour: str | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Everything a text asks for; None where it leaves the choice open, as a short text mostly does.

    `hills` is True when they are asked for and None otherwise, because no text asks for their absence; so it is with a
    static camera and with no weather, which only a full caption implies (`of_scene`).
    """

    objects: tuple[AskedObject, ...]
    ground: Ground | None = None
    sky: Sky | None = None
    weather: Weather | None = None
    camera: Camera | None = None
    hills: bool | None = None

    @property
    def nothing(self) -> bool:
        """Whether the text asks for nothing that this world knows."""
        choices = (self.ground, self.sky, self.weather, self.camera, self.hills)
        return not self.objects and all(c is None for c in choices)


def of_scene(scene: Scene) -> Asked:
    """All that a true and complete text of `scene` would ask for."""
    place = scene.scenery
    return Asked(
        objects=tuple(AskedObject(name=o.name, colour=o.colour, action=o.action) for o in scene.objects),
        ground=place.ground,
        sky=place.sky,
        weather=place.weather,
        camera=scene.camera,
        hills=place.hills,
    )
