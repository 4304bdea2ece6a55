"""Adapters: ControlNets and LoRAs, known by id in a store and never by path."""
