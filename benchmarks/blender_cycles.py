"""Draw a .glb file with Blender's Cycles, with the cameras, light and material of `vcgen data render`.

`mesh_blender.py` runs it by a Python that has the wheel `bpy`, which vcgen itself does not need:

``PYTHON blender_cycles.py MESH.glb CAMERAS.json OUT SIZE SAMPLES``

The object is fitted to the sphere of radius 0.5 here once more, by Blender's own vertices. Last line: seconds of each
view, as JSON: wall clock and processor time.
"""

import json
import sys
import time
from pathlib import Path

import bpy
from mathutils import Matrix, Vector

RADIUS = 0.5
#: As vcgen.meshes.light.STANDARD: radiance of the sky; of each sun irradiance, Euler angles and angle of its disc.
SKY, SUNS = 0.6, ((2.4, (0.9, 0.15, 0.6), 0.3), (0.7, (1.1, 0.0, -2.2), 0.3))


def main(mesh: str, cameras: str, out: str, size: str, samples: str) -> None:
    """Draw every view as OUT/NUMBER.png."""
    scene, camera = empty_scene(int(size), int(samples))
    bpy.ops.import_scene.gltf(filepath=mesh)
    objects = [found for found in scene.objects if found.type == "MESH"]
    fit(scene, objects)
    for material in {material for found in objects for material in found.data.materials if material} or {None}:
        plain(material, objects)
    content, times = json.loads(Path(cameras).read_text()), []
    for number, (c2w, K) in enumerate(zip(content["c2w"], content["K"], strict=True)):
        camera.matrix_world = Matrix(c2w) @ Matrix.Diagonal((1, -1, -1, 1))
        camera.data.sensor_width, camera.data.lens = 32.0, 32.0 * K[0][0]
        scene.render.filepath = f"{out}/{number}.png"
        wall, processor = time.perf_counter(), time.process_time()
        bpy.ops.render.render(write_still=True)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    print(json.dumps({"blender": bpy.app.version_string, "seconds": times}))


def empty_scene(size: int, samples: int) -> tuple[bpy.types.Scene, bpy.types.Object]:
    """Sky, suns and a camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", samples
    scene.cycles.seed = samples  # so that few samples are not the first of many
    scene.cycles.use_denoising = scene.cycles.use_adaptive_sampling = False
    scene.cycles.max_bounces, scene.render.film_transparent, scene.render.use_persistent_data = 3, True, True
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGBA"
    scene.cycles.pixel_filter_type = "BOX"
    scene.view_settings.view_transform = "Standard"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    sky = scene.world.node_tree.nodes["Background"].inputs
    sky[0].default_value, sky[1].default_value = (1, 1, 1, 1), SKY
    for energy, angles, disc in SUNS:
        light = bpy.data.lights.new("sun", "SUN")
        light.energy, light.angle = energy, disc
        sun = bpy.data.objects.new("sun", light)
        sun.rotation_euler = angles
        scene.collection.objects.link(sun)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.clip_start = 0.01
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene, camera


def fit(scene: bpy.types.Scene, objects: list) -> None:
    """Center the bounding box, and put the farthest vertex RADIUS from the origin."""
    bpy.context.view_layer.update()
    points = [found.matrix_world @ vertex.co for found in objects for vertex in found.data.vertices]
    low, high = (Vector(end(point[axis] for point in points) for axis in range(3)) for end in (min, max))
    middle = (low + high) / 2
    scale = RADIUS / max((point - middle).length for point in points)
    for root in [found for found in scene.objects if found.parent is None and found.type in ("MESH", "EMPTY")]:
        root.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation(-middle) @ root.matrix_world


def plain(material: bpy.types.Material | None, objects: list) -> None:
    """Matte with a faint gloss, in the color of its texture, or of the vertices."""
    if material is None or not material.use_nodes or "Principled BSDF" not in material.node_tree.nodes:
        material = bpy.data.materials.new("colors")
        material.use_nodes = True
        for found in objects:
            found.data.materials.clear()
            found.data.materials.append(material)
    tree = material.node_tree
    surface = tree.nodes["Principled BSDF"].inputs
    surface["Metallic"].default_value, surface["Roughness"].default_value, surface["IOR"].default_value = 0, 0.55, 1.45
    colors = next((found.data.color_attributes[0].name for found in objects if found.data.color_attributes), None)
    if colors and not surface["Base Color"].is_linked:
        attribute = tree.nodes.new("ShaderNodeAttribute")
        attribute.attribute_name = colors
        tree.links.new(attribute.outputs["Color"], surface["Base Color"])


if __name__ == "__main__":
    main(*sys.argv[1:])
