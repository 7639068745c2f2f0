"""From where an object is seen, in numbers and in words."""


def view_word(azimuth: float, elevation: float) -> str:
    """The word for a camera at ``azimuth`` degrees from the object's front and ``elevation`` above its equator.

    "overhead" above 60 degrees, "bottom" below -60; else "front" within 30 degrees of the front, "back" within 30 of its opposite,
    "side" between. The sectors are centred: with a front sector that begins at the front, half of the front views are called side views
    (RealFusion's release), and fronts appear on every side.
    """
    if abs(elevation) > 60:
        return "overhead" if elevation > 0 else "bottom"
    turn = abs((azimuth + 180) % 360 - 180)
    return "front" if turn <= 30 else "back" if turn >= 150 else "side"
