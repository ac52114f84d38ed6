"""Makes the rules' thresholds a part of the configuration, from which conf/diagnosis takes them."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from gan_lightning.diagnosis.rules import thresholds


class Thresholds(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        ConfigStore.instance().store("thresholds", thresholds(), provider="gan_lightning")
