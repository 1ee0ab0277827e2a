"""Architectures of timm, torchvision and transformers, exported here with torch, then compiled and compared."""
