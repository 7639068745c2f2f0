"""vcgen: view-conditioned 3D generation with PyTorch Lightning.

Three lines give novel views from a trained model::

    import vcgen
    model = vcgen.load("outputs/demo/model")
    field = model.field(context)          # context: vcgen.types.Views with one input view
"""

__version__ = "0.1.0"


def load(folder, device="cpu"):
    """Open a model folder written by ``vcgen export``; see :func:`vcgen.export.folder.load`."""
    from vcgen.export.folder import load as load_folder  # torch stays out of `import vcgen`

    return load_folder(folder, device=device)
