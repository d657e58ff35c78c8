"""Workflows to look at and to try jivsd out with: an order that is undone when its payment fails, and a campaign.

    jivsd start order --wait --input '{"order": "A-1", "amount": 1250}'
    jivsd start order --wait --input '{"order": "A-2", "amount": 1250, "card": "declined"}'
    jivsd start campaign --id spring --input '{"letters": 20}'
    jivsd signal campaign:spring approve '"ann"'
    curl --unix-socket DATA_DIR/jivsd.sock http://jivsd/api/v1/plugins/showcase/campaigns

What they do can be counted afterwards. What must happen exactly once stands in the table `showcase_ledger` of the
journal's own database (`ledger`); what happens in the outside world, at least once, is counted there (`world`), when
the input names one. `jivsd demo` runs both while it kills the daemon, and then counts.
"""

from .campaign import Campaign, campaigns
from .orders import delivery, order

NAME = "showcase"
"""Under which jivsd keeps the tables that `migrations/` makes."""

__all__ = ["Campaign", "campaigns", "delivery", "order"]
