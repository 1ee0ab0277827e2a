"""Serves any model without states: the Open Inference Protocol, version 2, over HTTP and gRPC."""
