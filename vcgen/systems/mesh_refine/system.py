"""The second stage of Magic3D (arXiv 2211.10440): a coarse scene becomes a mesh, refined by score distillation."""

import warnings
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import trimesh
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.data.viewpoints import ViewpointOptions, random_cameras
from vcgen.encoders.base import OptimizedScene
from vcgen.errors import UserError
from vcgen.guidance.base import Guidance, refuse_views
from vcgen.losses.course import value_at
from vcgen.losses.scene import SceneWeights
from vcgen.memory import peak_memory
from vcgen.rendering.baking import bake, described
from vcgen.rendering.meshes import Meshes
from vcgen.schema import AtLeastOne, NotNegative, Side
from vcgen.systems.mesh_refine import coarse as coarse_scene
from vcgen.systems.mesh_refine.scene import SceneTetrahedra
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.systems.text_to_3d.draws import draw_color, draw_shading
from vcgen.systems.text_to_3d.options import Prompt, TextTo3DOptions
from vcgen.systems.text_to_3d.outcome import OutcomeOptions, write_sheets
from vcgen.systems.text_to_3d.system import TextTo3D
from vcgen.types import Behind, Example, Field, Rendering, Scene
from vcgen.visualization.mesh_files import write_mesh


class MeshRefine(TextTo3D):
    """Magic3D's second stage (arXiv 2211.10440): a coarse scene becomes a textured mesh, refined by guidance.

    Its surface moves by signed distances on a grid of tetrahedra, its colors begin with the coarse scene's. The run
    ends by writing turntable, normals, depth, and a closed mesh with a texture, as .glb and .obj.

    Args:
        prior: Folder of a text prior (or hub name, fetched only with ``download``); neither trained nor stored in
            checkpoints.
        coarse: Folder of a run of TextTo3D, RealFusion or Distill, or the model folder ``field`` in it. A run that
            goes on has the scene in its checkpoint.
        cells: Of the tetrahedral grid, along the longest edge of the box around the coarse scene.
        guidance: SDS, SJC or VSD, on latents; null is SDS.
        prompt: The words that the prior is conditioned on; its subject is the data's text.
        sds_reduction: Of half the squared distance of latents to their targets, a weight of 1: "mean" over all
            entries, or "sum" over a latent's entries, mean over views.
        consistency: Weight of 1 - cos of the angle between neighboring faces, mean over edges; without it the surface
            becomes rough.
        viewpoints: Where random cameras stand.
        options: How the mesh is fitted; grid_lr is that of distances, in cells, and moves. ``coarse`` and
            ``refresh_every`` are of no effect.
        outcome: Which images are written at the end; the mesh is, unless mesh_resolution is 0.
        texture_size: Texels along a side of the mesh's texture; null, or too few, is what its faces need.
        half_prior: Keep the prior's weights in bfloat16: half the memory, for mixed precision.
        checkpoint_encoder: Recompute the encoder's activations in the backward pass: less memory, more time.
        download: Fetch the prior where it is not on this computer.
        learned: Folder of a run of Personalize on that prior, whose name for the object the text must hold.
    """

    scene: Any  # a SceneTetrahedra, which is no encoder
    coarse_model: NerfDiff  # from setup on

    def __init__(
        self,
        prior: str,
        coarse: Path,
        cells: AtLeastOne = 48,
        guidance: Guidance | None = None,
        prompt: Prompt = Prompt(template="a photo of {subject}, {view} view"),
        sds_reduction: Literal["mean", "sum"] = "mean",
        consistency: NotNegative = 0.01,
        viewpoints: ViewpointOptions = ViewpointOptions(),
        options: TextTo3DOptions = TextTo3DOptions(grid_lr=0.1),
        outcome: OutcomeOptions = OutcomeOptions(),
        texture_size: Side | None = None,
        half_prior: bool = False,
        checkpoint_encoder: bool = False,
        download: bool = False,
        learned: Path | None = None,
    ):
        if guidance is not None:  # before others ask for a change that would not help
            refuse_views(guidance)
        super().__init__(
            prior,
            cast(OptimizedScene, SceneTetrahedra(cells)),
            guidance,
            prompt,
            SceneWeights(sds_reduction=sds_reduction),
            viewpoints,
            options,
            outcome=outcome,
            half_prior=half_prior,
            checkpoint_encoder=checkpoint_encoder,
            download=download,
            learned=learned,
        )
        self.coarse, self.consistency, self.texture_size = coarse, consistency, texture_size

    def setup(self, stage: str) -> None:
        """Lightning's hook: the coarse scene, from where the refinement starts, and what a text needs. A run that goes
        on has the scene in its checkpoint.
        """
        kept = None if self.resumes_from is None else coarse_scene.of_checkpoint(Path(self.resumes_from))
        model = coarse_scene.of_folder(self.coarse) if kept is None else kept
        object.__setattr__(self, "coarse_model", model)  # not a submodule: it is not trained
        self.scene.start_from(coarse_scene.field_of(model, self.trainer.strategy.root_device))
        super().setup(stage)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: the coarse scene is kept."""
        checkpoint[coarse_scene.KEY] = coarse_scene.to_keep(self.coarse_model)

    def render(self, field: Scene, cameras: Cameras, size: tuple[int, int], background: Behind = 1.0) -> Rendering:
        """The mesh as it is now, from cameras (batch, views); ``field`` only colors it."""
        with torch.autocast(self.device.type, enabled=False):
            rendering, _ = self.scene.draw(self.scene.mesh(), cameras.reshape(-1), size, background=background)
        return Rendering(*(part.unflatten(0, cameras.shape) for part in rendering))

    def shaded(self, field: Field, camera: Cameras, size: tuple[int, int]) -> tuple[Rendering, Tensor]:
        """Image and normals of the mesh from a camera (1,), as of :func:`vcgen.rendering.shading.shaded_image`."""
        with torch.autocast(self.device.type, enabled=False):
            rendering, raster = self.scene.draw(self.scene.mesh(), camera, size)
            normals = raster.image(raster.normals(smooth=True) / 2 + 0.5, 1.0)
        return Rendering(*(part[None] for part in rendering)), normals[None]

    def losses(self, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
        """Of the guidance, "sds", as ``sds_reduction`` says; "consistency": 1 - cos of two faces, mean over edges."""
        progress = min(1.0, self.progress(self.global_step))
        self.loss_weights = {"sds": 1.0, "consistency": self.consistency}
        self.scene.cut_distances()
        with torch.autocast(self.device.type, enabled=False):
            mesh = self.scene.mesh()
            cameras, images = self.random_images(mesh, progress, generator)
        losses = {"consistency": 1 - mesh.edge_cosines().mean()}
        losses["sds"] = self.distill(images, cameras, progress, generator)
        return losses | self.guidance.losses(generator)

    def random_images(self, mesh: Meshes, progress: float, generator: torch.Generator) -> tuple[Cameras, Tensor]:
        """Cameras (views,), and lit images (views, 3, size, size) in [0, 1] of the mesh over the background."""
        cameras, images, size = [], [], self.options.render_size
        sphere, around = (self.scene.center, self.scene.radius), value_at(self.options.around, progress)
        for _ in range(self.options.views):
            camera = random_cameras(self.reference.cameras[0], *sphere, self.viewpoints, generator, around)
            shading = draw_shading(self.options, camera.centers[0] - self.scene.center, progress, generator)
            color = draw_color(self.options, self.device, generator)
            if color is None:
                color = self.background(camera.rays(size, size).directions)
            behind = color if isinstance(color, float) else color.expand(1, size**2, 3).mT.unflatten(-1, (size, size))
            images.append(self.scene.draw(mesh, camera, (size, size), shading, behind)[0].rgb)
            cameras.append(camera)
        return Cameras.cat(cameras), torch.cat(images)

    def on_train_end(self) -> None:
        """Write sheets, turntable and mesh into the run's folder; say how much memory it took."""
        if not self.writes:
            return
        folder = Path(self.trainer.default_root_dir)
        write_sheets(self, self.reference, folder, self.outcome)
        if self.outcome.mesh_resolution:
            write_textured(self.scene, folder, self.texture_size)
        rank_zero_info(f"peak memory: {peak_memory(self.device) / 1e9:.2f} GB")


@torch.no_grad()
def solid(scene: SceneTetrahedra) -> trimesh.Trimesh:
    """The surface as it is now, without floaters."""
    mesh = scene.mesh()
    whole = trimesh.Trimesh(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy(), process=False)
    labels = trimesh.graph.connected_component_labels(whole.face_adjacency, node_count=len(whole.faces))
    whole.update_faces(labels == np.bincount(labels, weights=whole.area_faces).argmax())
    whole.remove_unreferenced_vertices()
    return whole


def write_textured(scene: SceneTetrahedra, folder: Path, size: int | None) -> None:
    """mesh.glb, and mesh.obj with mesh.mtl and mesh.png; where the faces do not fit a texture of that size, one that
    they need, and a warning: a run that has ended would not be asked again.
    """
    mesh = solid(scene)
    device = scene.distances.device

    def colors(points: Tensor, inward: Tensor) -> Tensor:
        return scene.colors_at(points.to(device), inward.to(device))

    try:
        texture = bake(mesh, colors, size)
    except UserError as error:
        warnings.warn(f"model.texture_size: {error}; it has what they need instead", stacklevel=2)
        texture = bake(mesh, colors)
    for name in ("mesh.glb", "mesh.obj"):
        write_mesh(folder / name, mesh, texture)
    rank_zero_info(f"{folder / 'mesh.glb'}: {len(mesh.faces)} triangles, {described(texture)}")
