"""Plugins: where they are found, how they are loaded and checked, which versions of a workflow there are."""

from jivsd.registry.migrations import Migration
from jivsd.registry.registry import LoadedPlugin, Registry, Report
from jivsd.registry.source import PluginProblem

__all__ = ["LoadedPlugin", "Migration", "PluginProblem", "Registry", "Report"]
