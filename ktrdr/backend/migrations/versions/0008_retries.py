"""Which operation another repeats."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("operations", sa.Column("retry_of", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Drop it: the histories still say so."""
    op.drop_column("operations", "retry_of")
