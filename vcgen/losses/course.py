"""Values that change over a run: constants, or linear between points."""

from vcgen.schema import NotNegative, Unit

#: A constant, or points (fraction of the run, value), linear in between and constant outside; two points of one
#: fraction are a step.
Course = NotNegative | list[tuple[Unit, NotNegative]]


def value_at(course: Course, progress: float) -> float:
    """The value when the fraction ``progress`` in [0, 1] of the run is over; at a step the later one."""
    if not isinstance(course, list):
        return course
    before = [point for point in course if point[0] <= progress]
    after = [point for point in course if point[0] > progress]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (start, low), (end, high) = before[-1], after[0]
    return low + (high - low) * (progress - start) / (end - start)


def check_course(course: Course, name: str) -> None:
    """Raise ValueError unless its points, if it has some, are in order."""
    if isinstance(course, list) and (not course or [x for x, _ in course] != sorted(x for x, _ in course)):
        raise ValueError(f"{name}: need points (fraction of the run, value) in order, got {course}")
