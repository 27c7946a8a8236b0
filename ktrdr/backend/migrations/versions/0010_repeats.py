"""What who repeats a request is answered again."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("operations", sa.Column("preparation", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it: who repeats a request is told less."""
    op.drop_column("operations", "preparation")
