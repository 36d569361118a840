"""PyTorch programs on tensorgrad: ``tensorgrad run script.py`` and ``tensorgrad check script.py``.

``alias`` lets ``import torch`` find tensorgrad, ``run`` runs a program so, ``check`` reads one and lists what it will
miss. Nothing here is loaded by ``import tensorgrad``.
"""
