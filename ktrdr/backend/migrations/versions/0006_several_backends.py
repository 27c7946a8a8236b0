"""What several backends on one database tell each other: who publishes what, and who is there."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.String(64)


def upgrade() -> None:
    """Add the columns."""
    op.add_column("outbox", sa.Column("claimed_by", _ID))
    op.add_column("instances", sa.Column("owner", _ID))
    op.add_column("instances", sa.Column("reaches_bus", sa.Boolean()))
    op.add_column("agents", sa.Column("said_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("agents", "said_at")
    op.drop_column("instances", "reaches_bus")
    op.drop_column("instances", "owner")
    op.drop_column("outbox", "claimed_by")
